"""How often a classification is right: over all images, and class by class.

An image whose scores are not finite counts as wrong.
"""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from ssl_platform.registry import METRICS


@METRICS.register()
class TopKAccuracy:
    """Percent of images whose label is among the ``k`` highest-scored classes.

    With k classes or fewer every image is right, and evaluations leave the metric out.
    """

    def __init__(self, *, k: Annotated[int, Ge(1)]):
        self.k, self.min_classes = k, k + 1 if k > 1 else 1

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """(N, C) scores and (N,) labels to a percentage; with fewer than k classes, all count."""
        highest = scores.topk(min(self.k, scores.shape[1]), dim=1).indices
        is_right = (highest == labels[:, None]).any(dim=1) & scores.isfinite().all(dim=1)
        return 100 * is_right.double().mean().item()


@METRICS.register()
class MeanClassAccuracy:
    """Mean of `PerClassAccuracy` over the classes that have images: balanced accuracy."""

    balanced = True

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """(N, C) scores and (N,) labels to a percentage."""
        return class_accuracies(scores, labels).nanmean().item()


@METRICS.register()
class PerClassAccuracy:
    """Percent of the images of each class that are recognised; NaN for a class without images."""

    balanced = True

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(N, C) scores and (N,) labels to (C,) percentages."""
        return class_accuracies(scores, labels)


@METRICS.register()
class ConfusionMatrix:
    """How many images of each class, by row, are taken for each class, by column.

    An image whose scores are not finite is in no column.
    """

    balanced = True

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(N, C) scores and (N,) labels to (C, C) int64."""
        size = num_classes(scores, labels)
        taken_for = predictions(scores)
        is_known = taken_for >= 0
        cells = labels[is_known] * size + taken_for[is_known]
        return cells.bincount(minlength=size * size).view(size, size)


@METRICS.register()
class MacroF1:
    """Mean over the classes that have images of 2 precision recall / (precision + recall).

    In percent, by scikit-learn.
    """

    balanced = True

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """(N, C) scores and (N,) labels to a percentage."""
        from sklearn.metrics import f1_score  # the import takes a second

        truth, taken_for = labels.cpu().numpy(), predictions(scores).cpu().numpy()
        classes = labels.unique().cpu().numpy()
        options = {"average": "macro", "zero_division": 0}
        return 100 * float(f1_score(truth, taken_for, labels=classes, **options))


def predictions(scores: Tensor) -> Tensor:
    """(N,) int64 class with the highest score; -1 where a score is not finite."""
    highest = scores.topk(1, dim=1).indices[:, 0]
    return highest.masked_fill(~scores.isfinite().all(dim=1), -1)


def class_accuracies(scores: Tensor, labels: Tensor) -> Tensor:
    """(C,) float64, percent of the images of each class that are recognised; NaN without images."""
    size = num_classes(scores, labels)
    is_right = predictions(scores) == labels
    hits = labels[is_right].bincount(minlength=size)
    return 100 * hits.double() / labels.bincount(minlength=size)


def num_classes(scores: Tensor, labels: Tensor) -> int:
    """How many classes there are: those with scores, and those that no score is of."""
    return max(scores.shape[1], int(labels.max()) + 1)
