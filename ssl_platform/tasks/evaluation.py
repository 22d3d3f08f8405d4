"""What the evaluations that do not train the trunk have in common."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
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
from ssl_platform.evaluation.feature_cache import CacheOptions, FeatureCache, say, short_digest
from ssl_platform.evaluation.labelled_images import LabelledImages
from ssl_platform.evaluation.results import WEIGHTS, Figures, Results
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem, random_trunk
from ssl_platform.zoo.weights import Weights


@dataclass(frozen=True)
class EvaluationOptions(TrunkOptions):
    """Top-level keys of every evaluation."""

    baselines: bool
    pca_components: int
    test_fraction: float
    cache: CacheOptions


class Measurement(NamedTuple):
    figures: Figures
    details: dict[str, Any]  # how they came about: what was chosen, what was left out


class Evaluation(TrunkTask):
    """A measure of the features of a trunk and, to compare with, of the baselines' features.

    Features are of centre crops, by the trunk in eval mode and in float32; they come from the
    cache, where they are computed if they are not there.

    Attributes:
        protocol: in words, for wherever a figure is shown.
    """

    options: ClassVar[type[JobOptions]] = EvaluationOptions
    protocol: str

    @abstractmethod
    def measure(
        self, train: LabelledFeatures, test: LabelledFeatures, device: torch.device
    ) -> Measurement:
        """What the training images' features tell of the test images; on rank 0 only."""

    @abstractmethod
    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        """Images to learn from and images to test on.

        Raises:
            ValueError: they do not fit; the message begins with the key.
        """

    def probe(self, options: EvaluationOptions) -> None:
        if options.pca_components < 1:
            raise ValueError(f"pca_components={options.pca_components}: at least 1")
        self.images(options)
        with as_problem():
            TrainedTrunk.open(options)

    def __call__(self, options: EvaluationOptions) -> Results | None:
        """Measure, print and write ``results.json``; returns the results on rank 0."""
        folder = Path(options.output_dir)
        return self.evaluate(options, folder, config=(folder / "config.yaml").read_text())

    def evaluate(self, options: EvaluationOptions, folder: Path, *, config: str) -> Results | None:
        """Measure, print and write ``results.json`` into a folder that exists.

        Args:
            config: the whole config of the job, as YAML, for the results.
        """
        trunk = TrainedTrunk.open(options)
        train, test = self.images(options)
        device = resolve_device(options.device)
        untrained = random_trunk(options.trunk, options.seed)
        features = _extract_all(options, trunk, untrained, train, test, device)
        if distributed.rank() != 0:
            return None
        measured = {WEIGHTS: self.measure(*features[WEIGHTS], device)}
        if options.baselines:
            measured |= measure_baselines(
                lambda name, _: features[name],
                lambda learned, tested: self.measure(learned, tested, device),
                untrained,
                pca_components=options.pca_components,
            )
        results = self._results(
            options, config, trunk.weights, (train, test), features[WEIGHTS], measured
        )
        results.write(folder)
        print(legible(f"\n{results.table()}"), flush=True)
        return results

    def _results(
        self,
        options: EvaluationOptions,
        config: str,
        weights: Weights,
        images: tuple[LabelledImages, LabelledImages],
        features: tuple[LabelledFeatures, LabelledFeatures],
        measured: dict[str, Measurement],
    ) -> Results:
        figures = {name: measurement.figures for name, measurement in measured.items()}
        return Results(
            protocol=self.protocol,
            figures=figures.pop(WEIGHTS),
            baselines=figures,
            weights={"source": weights.source, "format": weights.format, "sha256": weights.sha256},
            seed=options.seed,
            config=config,
            details={
                "train_images": len(features[0].labels),
                "test_images": len(features[1].labels),
                "unreadable_images": sum(len(i.positions) for i in images)
                - sum(len(f.labels) for f in features),
                "test_images_are": "data.val" if options.data.val else "held out of data.train",
                **{name: measurement.details for name, measurement in measured.items()},
            },
        )


def _extract_all(
    options: EvaluationOptions,
    trunk: TrainedTrunk,
    untrained: nn.Module,
    train: LabelledImages,
    test: LabelledImages,
    device: torch.device,
) -> dict[str, tuple[LabelledFeatures, LabelledFeatures]]:
    """Features of both sets of images by the trunk and by the baselines; collective."""
    cache = FeatureCache(options.cache, options, device)
    subjects: dict[str, tuple[str, dict[str, str], Embed]] = {
        WEIGHTS: (trunk.weights.source, trunk.fingerprint, trunk.module.to(device))
    }
    if options.baselines:
        random_name = f"{RANDOM_INIT} {short_digest([options.trunk, options.seed])}"
        random_identity = trunk.fingerprint | {"weights": f"random, seed {options.seed}"}
        subjects[RANDOM_INIT] = random_name, random_identity, untrained.to(device)
        subjects[RAW_PIXELS] = RAW_PIXELS, {"weights": "none"}, pixels
    return {
        name: (
            _labelled(cache, subject, identity, embed, train),
            _labelled(cache, subject, identity, embed, test),
        )
        for name, (subject, identity, embed) in subjects.items()
    }


def _labelled(
    cache: FeatureCache,
    subject: str,
    identity: dict[str, str],
    embed: Embed,
    images: LabelledImages,
) -> LabelledFeatures:
    """Features of the images that can be read."""
    name = f"{images.role} {short_digest(images.node)}"
    files = cache.features(subject, identity, embed, name, images.dataset, images.positions)
    features = torch.from_numpy(files.array("features"))
    targets = torch.from_numpy(images.targets)
    if not files.unreadable:
        return LabelledFeatures(features, targets)
    say(f"{files.folder}: {len(files.unreadable)} images cannot be read and are left out")
    readable = np.setdiff1d(np.arange(len(features)), files.unreadable)
    return LabelledFeatures(features[readable], targets[readable])
