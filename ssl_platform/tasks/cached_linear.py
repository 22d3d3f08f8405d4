"""Linear classification of cached features: many settings in the time of few."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import numpy as np
import torch

from ssl_platform.evaluation.baselines import LabelledFeatures
from ssl_platform.evaluation.labelled_images import LabelledImages, open_labelled_images
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


class Solver(Protocol):
    """A way to fit linear classifiers, with the settings to choose from."""

    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        """One classifier for each of ``settings()``."""

    def settings(self) -> "list[Solver]":
        """The same solver with each setting alone; ``str()`` of one tells it."""


@dataclass(frozen=True)
class SGD:
    learning_rates: list[float]
    weight_decays: list[float]
    num_epochs: int
    batch_size: int
    momentum: float

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
class LBFGS:
    l2: list[float]
    max_iters: int
    tolerance: float

    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        return fit_lbfgs(rows, num_classes, **vars(self))

    def settings(self) -> list[Solver]:
        return [replace(self, l2=[penalty]) for penalty in self.l2]

    def __str__(self) -> str:
        return f"l2={self.l2}"


@dataclass(frozen=True)
class Ridge:
    l2: list[float]

    def fit(self, rows: Rows, num_classes: int, seed: int) -> LinearClassifiers:
        return fit_ridge(rows, num_classes, l2=self.l2)

    def settings(self) -> list[Solver]:
        return [replace(self, l2=[penalty]) for penalty in self.l2]

    def __str__(self) -> str:
        return f"l2={self.l2}"


@TASKS.register()
class CachedLinear(Evaluation):
    """A linear classifier on features that were computed once, on centre crops.

    Part of the training images choose each solver's setting, and then the solver; the chosen
    classifiers are fitted again on all training images and read the test images once.

    Args:
        validation_fraction: of each class of the training images.
        sgd, lbfgs, ridge: solvers and their settings; null leaves one out.
        seed: of the validation images and of the order of SGD.
    """

    protocol = "cached centre-crop protocol: a linear classifier on features without augmentation"

    def __init__(
        self,
        *,
        validation_fraction: float,
        sgd: SGD | None,
        lbfgs: LBFGS | None,
        ridge: Ridge | None,
        seed: int,
    ):
        solvers: dict[str, Solver | None] = {"SGD": sgd, "L-BFGS": lbfgs, "ridge": ridge}
        self.solvers = {name: solver for name, solver in solvers.items() if solver is not None}
        self.validation_fraction, self.seed = validation_fraction, seed
        problems = []
        if not 0 < validation_fraction < 1:
            problems.append(f"validation_fraction={validation_fraction}: between 0 and 1, e.g. 0.1")
        if not self.solvers:
            problems.append("sgd=null: and no other solver either; one is needed")
        for key, solver in (("sgd", sgd), ("lbfgs", lbfgs), ("ridge", ridge)):
            if solver is not None:
                problems += [f"{key}.{problem}" for problem in _problems(solver)]
        if problems:
            raise ValueError("\n".join(problems))

    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        train, test = open_labelled_images(
            options.data, test_fraction=options.test_fraction, seed=options.seed
        )
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
        self, train: LabelledFeatures, test: LabelledFeatures, device: torch.device
    ) -> Measurement:
        num_classes = int(train.labels.max()) + 1
        fitting, validation = self._split(train.labels.numpy())
        fit_rows = _rows(train, torch.from_numpy(fitting), device)
        validation_rows = replace(fit_rows, positions=torch.from_numpy(validation))
        whole = _rows(train, torch.arange(len(train.labels)), device)
        test_rows = Rows(
            test.features, test.labels, torch.arange(len(test.labels)), whole.standard, device
        )
        final, details = [], {}
        for name, solver in self.solvers.items():
            classifiers = solver.fit(fit_rows, num_classes, self.seed)
            (scores,) = accuracies(classifiers, validation_rows, [1])
            chosen = solver.settings()[int(scores.argmax())]
            final.append(chosen.fit(whole, num_classes, self.seed))
            details[name] = {"chosen": str(chosen), "validation_top1": scores.max().item()}
        best = max(details, key=lambda name: details[name]["validation_top1"])
        stacked = LinearClassifiers(*(torch.cat(parts) for parts in zip(*final, strict=True)))
        ks = [1, 5] if num_classes > 5 else [1]
        columns = accuracies(stacked, test_rows, ks).T.tolist()
        by_solver = {
            name: {f"top{k}": score for k, score in zip(ks, column, strict=True)}
            for name, column in zip(details, columns, strict=True)
        }
        figures = {"linear": by_solver[best]} | {
            f"linear by {name}": found for name, found in by_solver.items()
        }
        return Measurement(figures, {"solver": best, **details})


def _problems(solver: SGD | LBFGS | Ridge) -> list[str]:
    """Options that cannot be: lists to choose from, whole numbers, and what may be zero."""
    may_be_zero = {"weight_decays", "momentum", "tolerance"}
    problems = []
    for key, value in vars(solver).items():
        if value == []:
            problems.append(f"{key}=[]: nothing to choose from")
        elif np.min(value) < 0 or (np.min(value) == 0 and key not in may_be_zero):
            least = "0 or more" if key in may_be_zero else "above 0"
            problems.append(f"{key}={value}: must be {least}")
    return problems


def _rows(part: LabelledFeatures, positions: torch.Tensor, device: torch.device) -> Rows:
    standard = Standard.of(part.features, positions)
    return Rows(part.features, part.labels, positions, standard, device)
