"""Average precision of each class, where an image may be of several."""

import torch
from torch import Tensor

from ssl_platform.ops.average_precision import average_precision
from ssl_platform.registry import METRICS


@METRICS.register()
class PerClassAveragePrecision:
    """Average precision of the ranking of the images by each class, as VOC measures it."""

    balanced = multi_label = True

    def __call__(self, scores: Tensor, marks: Tensor) -> Tensor:
        """(N, C) scores and (N, C) marks to (C,) percentages; NaN for a class without images.

        A mark is 1 (present), -1 (absent) or 0 (left out).
        """
        values = []
        for scored, marked in zip(scores.T.cpu(), marks.T.cpu(), strict=True):
            counts = marked != 0
            has_images = bool((marked > 0).any())
            ranking = marked[counts].numpy(), scored[counts].numpy()
            values.append(100 * average_precision(*ranking) if has_images else torch.nan)
        return torch.tensor(values, dtype=torch.float64)
