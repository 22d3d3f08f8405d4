"""The base of the evaluations that do not train the trunk."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Interval
from torch import nn

from ssl_platform import distributed
from ssl_platform.config.options import JobOptions
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
from ssl_platform.evaluation.feature_cache import CacheOptions, FeatureCache, short_digest
from ssl_platform.evaluation.labelled_images import LabelledImages
from ssl_platform.evaluation.results import WEIGHTS, Figures, Results
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem, random_trunk


@dataclass(frozen=True)
class EvaluationOptions(TrunkOptions):
    """Top-level keys of every evaluation."""

    baselines: bool
    pca_components: Annotated[int, Ge(1)]
    test_fraction: Annotated[float, Interval(gt=0, lt=1), "e.g. 0.2"]
    cache: CacheOptions


class Measurement(NamedTuple):
    """What an evaluation measured on one kind of features."""

    figures: Figures
    details: dict[str, Any]  # settings that were chosen, remarks


class Evaluation(TrunkTask):
    """A measure of the features of a trunk and, for comparison, of the features of the baselines.

    The trunk computes the features of centre crops in eval mode and in float32. They are kept in
    the cache, and taken from there by later evaluations.

    Attributes:
        protocol: description that is shown with every figure.
    """

    options: ClassVar[type[JobOptions]] = EvaluationOptions
    protocol: str

    @abstractmethod
    def measure(
        self, train: LabelledFeatures, test: LabelledFeatures, device: torch.device
    ) -> Measurement:
        """Learn from the features of the training images and test; on rank 0 only."""

    @abstractmethod
    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        """Images to train on and images to test on.

        Raises:
            ValueError: they do not fit; the message begins with the key.
        """

    def probe(self, options: EvaluationOptions) -> None:
        self.images(options)
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
        images = self.images(options)
        device = resolve_device(options.device)
        untrained = random_trunk(options.trunk, options.seed)
        features = _extract_all(options, trunk, untrained, images, device)
        if distributed.rank() != 0:
            return None
        measured = {WEIGHTS: self.measure(*features[WEIGHTS], device)}
        if options.baselines:
            measured |= measure_baselines(
                lambda name, _: features[name],
                lambda train, test: self.measure(train, test, device),
                untrained,
                pca_components=options.pca_components,
            )
        figures = {name: measurement.figures for name, measurement in measured.items()}
        num_train, num_test = (len(part.labels) for part in features[WEIGHTS])
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
                **{name: measurement.details for name, measurement in measured.items()},
            },
        )
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
        random_name = f"{RANDOM_INIT} {short_digest([options.trunk, options.seed])}"
        random_identity = trunk.fingerprint | {"weights": f"random, seed {options.seed}"}
        subjects[RANDOM_INIT] = random_name, random_identity, untrained.to(device)
        subjects[RAW_PIXELS] = RAW_PIXELS, {"weights": "none"}, pixels
    train, test = images
    return {
        name: (cache.features(*subject, train), cache.features(*subject, test))
        for name, subject in subjects.items()
    }
