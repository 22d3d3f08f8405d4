"""Linear support vector machines on the features of PASCAL VOC 2007."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, MinLen

from ssl_platform.config.options import DataOptions, Node
from ssl_platform.console.working import working
from ssl_platform.data.sets.voc import VOC2007
from ssl_platform.engine.build import open_dataset
from ssl_platform.evaluation.baselines import LabelledFeatures
from ssl_platform.evaluation.labelled_images import LabelledImages
from ssl_platform.metrics import Metric, measured
from ssl_platform.ops.average_precision import average_precision
from ssl_platform.registry import TASKS
from ssl_platform.tasks.evaluation import Evaluation, EvaluationOptions, Measurement

if TYPE_CHECKING:
    from sklearn.model_selection import GridSearchCV

PRESENT, DIFFICULT = 1, 0  # marks of a class in an image; -1 is absent


@dataclass(frozen=True)
class VOC07Options(EvaluationOptions):
    """Top-level keys of this task: those of every evaluation."""

    metrics: dict[str, Node] = field(default_factory=dict)  # mAP is the protocol's


@TASKS.register()
class VOC07SVM(Evaluation):
    """One LIBLINEAR SVM per class, as in the SwAV paper, A.5 (Goyal et al. 2019).

    The cost of each class is chosen by its average precision in cross-validation. Images that are
    difficult for a class count as negatives in training and are left out of its test.

    Args:
        costs: C to choose from.
        num_folds: of the cross-validation.
        positive_weight: of the images in which the class is present; 1 for the others.
        tolerance, max_iters: when LIBLINEAR stops.
        seed: of the order in which LIBLINEAR visits the images.
    """

    options = VOC07Options
    multi_label = True

    def __init__(
        self,
        *,
        costs: Annotated[list[Annotated[float, Gt(0)]], MinLen(1)],
        num_folds: Annotated[int, Ge(2)],
        positive_weight: Annotated[float, Gt(0)],
        tolerance: Annotated[float, Gt(0)],
        max_iters: Annotated[int, Ge(1)],
        seed: int,
    ):
        self.costs, self.num_folds, self.positive_weight = costs, num_folds, positive_weight
        self.tolerance, self.max_iters, self.seed = tolerance, max_iters, seed
        self.protocol = (
            "VOC07 protocol: centre crops, a linear SVM per class, cost by "
            f"{num_folds}-fold cross-validation, mean average precision"
        )

    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        if options.data.val is None:
            raise ValueError("data.val=null: name the images to test on, a split of VOC2007")
        train = _open("train", options.data.train, "train", options.data)
        test = _open("val", options.data.val, "test", options.data)
        if train.dataset.classes != test.dataset.classes:
            raise ValueError("data.val: its classes are not those of data.train")
        for key, images, needed in (("train", train, self.num_folds), ("val", test, 1)):
            counts = (images.targets == PRESENT).sum(axis=0)
            rarest = int(counts.argmin())
            if counts[rarest] < needed:
                assert images.dataset.classes is not None
                raise ValueError(
                    f"data.{key}: {counts[rarest]} images of {images.dataset.classes[rarest]}, "
                    f"at least {needed} are needed"
                )
        return train, test

    def measure(
        self,
        train: LabelledFeatures,
        test: LabelledFeatures,
        device: torch.device,
        metrics: Mapping[str, Metric],
    ) -> Measurement:
        train_rows, test_rows = _unit_length(train), _unit_length(test)
        train_marks, test_marks = train.labels.numpy(), test.labels.numpy()

        def of_class(number: int) -> tuple[float, float, np.ndarray]:
            is_present = train_marks[:, number] == PRESENT
            search = self._search().fit(train_rows, is_present)
            clear = test_marks[:, number] != DIFFICULT
            scores = search.decision_function(test_rows)
            precision = 100 * average_precision(test_marks[clear, number], scores[clear])
            work.advance()
            return search.best_params_["C"], precision, scores

        # LIBLINEAR releases Python's lock
        classes = range(train_marks.shape[1])
        with (
            working("fitting the SVMs", len(classes), "classes") as work,
            ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        ):
            found = zip(*pool.map(of_class, classes), strict=True)
            costs, precisions, columns = found
        scores = torch.from_numpy(np.stack(columns, axis=1))
        figures, tables = measured(metrics, scores, test.labels)
        return Measurement(
            {"SVM": {"mAP": float(np.mean(precisions)), **figures}},
            {"AP": list(precisions), "cost": list(costs)},
            {"SVM": tables},
        )

    def _search(self) -> "GridSearchCV":
        """An SVM with the cost of the highest average precision, the first of equal ones."""
        from sklearn.model_selection import GridSearchCV  # the import takes a second
        from sklearn.svm import LinearSVC

        svm = LinearSVC(
            penalty="l2",
            loss="squared_hinge",
            dual=True,
            class_weight={True: self.positive_weight, False: 1.0},
            intercept_scaling=1.0,
            tol=self.tolerance,
            max_iter=self.max_iters,
            random_state=self.seed,
        )
        costs = {"C": self.costs}
        return GridSearchCV(svm, costs, scoring="average_precision", cv=self.num_folds)


def _open(key: str, node: Node, role: str, data: DataOptions) -> LabelledImages:
    if node["name"] != VOC2007.__name__:
        raise ValueError(f"data.{key}.name={node['name']}: has to be VOC2007; use data=voc07")
    dataset = open_dataset(node, data)
    assert isinstance(dataset, VOC2007)
    return LabelledImages(role, node, dataset, np.arange(len(dataset)), dataset.targets)


def _unit_length(part: LabelledFeatures) -> np.ndarray:
    rows = part.features[:].double().numpy()
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5)
