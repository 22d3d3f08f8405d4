"""The base of the evaluations that do not train the trunk."""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Interval
from torch import nn

from ssl_platform import distributed
from ssl_platform.config.options import JobOptions, Node
from ssl_platform.console import legible
from ssl_platform.engine.build import resolve_device
from ssl_platform.evaluation.baselines import (
    RANDOM_INIT,
    RAW_PIXELS,
    Embed,
    LabelledFeatures,
    measure_baselines,
    pixels,
)
from ssl_platform.evaluation.class_tables import (
    Tables,
    class_files,
    class_names,
    write_class_files,
)
from ssl_platform.evaluation.feature_cache import CacheOptions, FeatureCache, short_digest
from ssl_platform.evaluation.labelled_images import LabelledImages
from ssl_platform.evaluation.results import WEIGHTS, Figures, Results
from ssl_platform.metrics import Metric
from ssl_platform.metrics.fitness import notes_on_metrics, problems_of_metrics
from ssl_platform.registry import METRICS
from ssl_platform.tasks.trunk import (
    TrainedTrunk,
    TrunkOptions,
    TrunkTask,
    as_problem,
    random_trunk,
    without_default_channels,
)

logger = logging.getLogger(__name__)


def top1_and_top5() -> dict[str, Node]:
    """What evaluations measured before there was the key ``metrics``."""
    return {f"top{k}": {"name": "TopKAccuracy", "k": k} for k in (1, 5)}


@dataclass(frozen=True)
class EvaluationOptions(TrunkOptions):
    """Top-level keys of every evaluation."""

    baselines: bool
    pca_components: Annotated[int, Ge(1)]
    test_fraction: Annotated[float, Interval(gt=0, lt=1), "e.g. 0.2"]
    cache: CacheOptions
    metrics: dict[str, Node] = field(default_factory=top1_and_top5)


class Measurement(NamedTuple):
    """What an evaluation measured on one kind of features."""

    figures: Figures
    details: dict[str, Any]  # settings that were chosen, remarks
    tables: Tables  # of each class


class Evaluation(TrunkTask):
    """A measure of the features of a trunk and, for comparison, of the features of the baselines.

    The trunk computes the features of centre crops in eval mode and in float32. They are kept in
    the cache, and taken from there by later evaluations.

    Attributes:
        protocol: description that is shown with every figure.
        multi_label: whether an image may be of several classes.
    """

    options: ClassVar[type[JobOptions]] = EvaluationOptions
    protocol: str
    multi_label: ClassVar[bool] = False

    @abstractmethod
    def measure(
        self,
        train: LabelledFeatures,
        test: LabelledFeatures,
        device: torch.device,
        metrics: Mapping[str, Metric],
    ) -> Measurement:
        """Learn from the features of the training images and test; on rank 0 only."""

    @abstractmethod
    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        """Images to train on and images to test on.

        Raises:
            ValueError: they do not fit; the message begins with the key.
        """

    def probe(self, options: EvaluationOptions) -> None:
        train, _ = self.images(options)
        problems = problems_of_metrics(
            metrics_of(options), num_classes(train), multi_label=self.multi_label
        )
        if problems:
            raise ValueError("\n".join(problems))
        with as_problem():
            TrainedTrunk.open(options)

    def __call__(self, options: EvaluationOptions) -> Results | None:
        """Measure, print and write ``results.json``; returns the results on rank 0, else None."""
        folder = Path(options.output_dir)
        return self.evaluate(options, folder, config=(folder / "config.yaml").read_text())

    def evaluate(self, options: EvaluationOptions, folder: Path, *, config: str) -> Results | None:
        """Measure, print and write ``results.json`` into a folder that exists.

        Args:
            config: the whole config of the job, as YAML, for the results.
        """
        trunk = TrainedTrunk.open(options)
        images, metrics = self.images(options), metrics_of(options)
        device = resolve_device(options.device)
        untrained = random_trunk(options.trunk, options.seed)
        features = _extract_all(options, trunk, untrained, images, device)
        if distributed.rank() != 0:
            return None
        if not self.multi_label:
            _note(options, images, metrics)
        measured = {WEIGHTS: self.measure(*features[WEIGHTS], device, metrics)}
        if options.baselines:
            measured |= measure_baselines(
                lambda name, _: features[name],
                lambda train, test: self.measure(train, test, device, metrics),
                untrained,
                pca_components=options.pca_components,
            )
        figures = {name: measurement.figures for name, measurement in measured.items()}
        num_train, num_test = (len(part.labels) for part in features[WEIGHTS])
        files = _class_files(measured, images[0], features[WEIGHTS][1].labels)
        results = Results(
            protocol=self.protocol,
            figures=figures.pop(WEIGHTS),
            baselines=figures,
            weights=trunk.weights.identity,
            seed=options.seed,
            config=config,
            details={
                "train_images": num_train,
                "test_images": num_test,
                "unreadable_images": sum(len(i.positions) for i in images) - num_train - num_test,
                "test_images_are": "data.val" if options.data.val else "held out of data.train",
                **({"files_of_classes": [*files]} if files else {}),
                **{name: measurement.details for name, measurement in measured.items()},
            },
        )
        write_class_files(folder, files)
        results.write(folder)
        print(legible(f"\n{results.table()}"), flush=True)
        return results


def _extract_all(
    options: EvaluationOptions,
    trunk: TrainedTrunk,
    untrained: nn.Module,
    images: tuple[LabelledImages, LabelledImages],
    device: torch.device,
) -> dict[str, tuple[LabelledFeatures, LabelledFeatures]]:
    """Features of both sets of images by the trunk and by the baselines; collective."""
    cache = FeatureCache(options.cache, options, device)
    subjects: dict[str, tuple[str, dict[str, str], Embed]] = {
        WEIGHTS: (trunk.weights.shown, trunk.fingerprint, trunk.module.to(device))
    }
    if options.baselines:
        trunk_node = without_default_channels(options.trunk)
        random_name = f"{RANDOM_INIT} {short_digest([trunk_node, options.seed])}"
        random_identity = trunk.fingerprint | {"weights": f"random, seed {options.seed}"}
        subjects[RANDOM_INIT] = random_name, random_identity, untrained.to(device)
        subjects[RAW_PIXELS] = RAW_PIXELS, {"weights": "none"}, pixels
    train, test = images
    return {
        name: (cache.features(*subject, train), cache.features(*subject, test))
        for name, subject in subjects.items()
    }


def metrics_of(options: EvaluationOptions) -> dict[str, Metric]:
    """By name, the scores that an evaluation reports."""
    return {name: METRICS.build(node) for name, node in options.metrics.items()}


def num_classes(images: LabelledImages) -> int:
    """How many classes some images have, as a classifier that learns from them counts."""
    targets = images.targets
    return targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1


def _note(
    options: EvaluationOptions,
    images: tuple[LabelledImages, LabelledImages],
    metrics: Mapping[str, Metric],
) -> None:
    """Say what a reader of the figures has to know."""
    train, test = images
    key = "data.val" if options.data.val else "images held out of data.train"
    labels = torch.from_numpy(test.targets)
    for note in notes_on_metrics(metrics, labels, num_classes(train), key):
        logger.info("%s", note)


def _class_files(
    measured: Mapping[str, Measurement], train: LabelledImages, labels: torch.Tensor
) -> dict[str, bytes]:
    """The files of what was measured of each class, by path."""
    tables = {
        f"{subject} {what}": by_metric
        for subject, measurement in measured.items()
        for what, by_metric in measurement.tables.items()
    }
    is_one = labels.ndim == 1
    counts = labels.bincount() if is_one else (labels > 0).sum(dim=0)
    return class_files(tables, class_names(train.dataset), counts.tolist())
