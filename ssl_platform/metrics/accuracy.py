"""Share of samples whose class is among the highest scores."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from ssl_platform.registry import METRICS


@METRICS.register()
class TopKAccuracy:
    """Percent of samples whose label is among the ``k`` highest-scored classes.

    A sample whose scores are not finite counts as wrong.
    """

    def __init__(self, *, k: Annotated[int, Ge(1)]):
        self.k = k

    def __call__(self, scores: Tensor, labels: Tensor) -> float:
        """(N, C) scores and (N,) labels to a percentage; with fewer than k classes, all count."""
        highest = scores.topk(min(self.k, scores.shape[1]), dim=1).indices
        is_right = (highest == labels[:, None]).any(dim=1) & scores.isfinite().all(dim=1)
        return 100 * is_right.double().mean().item()


def top_accuracies(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and, where there are more than five classes, top-5 accuracy in percent."""
    ks = (1, 5) if scores.shape[1] > 5 else (1,)
    return {f"top{k}": TopKAccuracy(k=k)(scores, labels) for k in ks}
