"""Linear classification of cached features, with many settings at once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval, MinLen

from ssl_platform.console.working import working
from ssl_platform.evaluation.baselines import LabelledFeatures
from ssl_platform.evaluation.labelled_images import LabelledImages, open_labelled_images
from ssl_platform.metrics import Metric, measured
from ssl_platform.ops.linear_probe import (
    LinearClassifiers,
    Rows,
    Standard,
    accuracies,
    fit_lbfgs,
    fit_ridge,
    fit_sgd,
)
from ssl_platform.ops.sampling import stratified_split
from ssl_platform.registry import TASKS
from ssl_platform.tasks.evaluation import Evaluation, EvaluationOptions, Measurement


class Solver(ABC):
    """A way to fit linear classifiers, with the settings to choose from."""

    @abstractmethod
    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        """One classifier for each of ``settings()``."""

    @abstractmethod
    def settings(self) -> "list[Solver]":
        """The same solver with each setting alone; ``str()`` shows the setting."""


@dataclass(frozen=True)
class SGD(Solver):
    """Cross entropy by SGD, for each pair of a learning rate and a weight decay."""

    learning_rates: Annotated[list[Annotated[float, Gt(0)]], MinLen(1)]
    weight_decays: Annotated[list[Annotated[float, Ge(0)]], MinLen(1)]
    num_epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(1)]
    momentum: Annotated[float, Ge(0)]

    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        return fit_sgd(rows, num_classes, seed=seed, **vars(self))

    def settings(self) -> list[Solver]:
        return [
            replace(self, learning_rates=[rate], weight_decays=[decay])
            for rate, decay in product(self.learning_rates, self.weight_decays)
        ]

    def __str__(self) -> str:
        return f"learning_rates={self.learning_rates} weight_decays={self.weight_decays}"


@dataclass(frozen=True)
class Penalized(Solver):
    """A solver whose settings are penalties on the weights."""

    l2: Annotated[list[Annotated[float, Gt(0)]], MinLen(1)]

    def settings(self) -> list[Solver]:
        return [replace(self, l2=[penalty]) for penalty in self.l2]

    def __str__(self) -> str:
        return f"l2={self.l2}"


@dataclass(frozen=True)
class LBFGS(Penalized):
    """Cross entropy to its minimum."""

    max_iters: Annotated[int, Ge(1)]
    tolerance: Annotated[float, Ge(0)]

    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        return fit_lbfgs(rows, num_classes, **vars(self))


@dataclass(frozen=True)
class Ridge(Penalized):
    """Least squares."""

    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        return fit_ridge(rows, num_classes, l2=self.l2)


@TASKS.register()
class CachedLinear(Evaluation):
    """A linear classifier on features of centre crops that are computed once.

    A part of the training images is used to choose the setting of each solver, and then the solver.
    The chosen classifiers are fitted again on all training images and tested once.

    Args:
        validation_fraction: part of each class of the training images that the choice is made on.
        sgd, lbfgs, ridge: solvers and their settings; null leaves one out.
        seed: of the draw of the validation images and of the order of SGD.
    """

    protocol = "cached centre-crop protocol: a linear classifier on features without augmentation"

    def __init__(
        self,
        *,
        validation_fraction: Annotated[float, Interval(gt=0, lt=1), "e.g. 0.1"],
        sgd: SGD | None,
        lbfgs: LBFGS | None,
        ridge: Ridge | None,
        seed: int,
    ):
        solvers: dict[str, Solver | None] = {"SGD": sgd, "L-BFGS": lbfgs, "ridge": ridge}
        self.solvers = {name: solver for name, solver in solvers.items() if solver is not None}
        self.validation_fraction, self.seed = validation_fraction, seed
        if not self.solvers:
            raise ValueError("sgd=null: and no other solver either; one is needed")

    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        train, test = open_labelled_images(options.data, options.test_fraction, options.seed)
        if not len(self._split(train.targets)[1]):
            raise ValueError(
                "data.train: no class has two images, so that none can be kept to choose "
                "a setting by"
            )
        return train, test

    def _split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows to fit and rows to validate."""
        return stratified_split(labels, self.validation_fraction, np.random.default_rng(self.seed))

    def measure(
        self,
        train: LabelledFeatures,
        test: LabelledFeatures,
        device: torch.device,
        metrics: Mapping[str, Metric],
    ) -> Measurement:
        num_classes = int(train.labels.max()) + 1
        fitting, validation = self._split(train.labels.numpy())
        fit_rows = _rows(train, torch.from_numpy(fitting), device)
        validation_rows = replace(fit_rows, positions=torch.from_numpy(validation))
        whole = _rows(train, torch.arange(len(train.labels)), device)
        test_rows = Rows(
            test.features, test.labels, torch.arange(len(test.labels)), whole.standard, device
        )
        figures, tables, details = {}, {}, {}
        for name, solver in self.solvers.items():
            with working(f"choosing a setting of {name}"):
                classifiers = solver.fit(fit_rows, num_classes, self.seed)
                top1 = accuracies(classifiers, validation_rows)
            chosen = solver.settings()[int(top1.argmax())]
            with working(f"fitting {name}"):
                final = chosen.fit(whole, num_classes, self.seed)
            scores = final.scores_of(test_rows)
            figures[name], tables[name] = measured(metrics, scores, test.labels)
            details[name] = {"chosen": str(chosen), "validation_top1": top1.max().item()}
        best = max(details, key=lambda name: details[name]["validation_top1"])
        return Measurement(_named(figures, best), {"solver": best, **details}, _named(tables, best))


def _named(by_solver: dict[str, Any], best: str) -> dict[str, Any]:
    """What was measured of each solver, that of the best one first."""
    return {
        "linear": by_solver[best],
        **{f"linear by {name}": value for name, value in by_solver.items()},
    }


def _rows(part: LabelledFeatures, positions: torch.Tensor, device: torch.device) -> Rows:
    standard = Standard.of(part.features, positions)
    return Rows(part.features, part.labels, positions, standard, device)
