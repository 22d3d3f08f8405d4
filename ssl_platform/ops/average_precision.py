"""Average precision of a ranking, as the PASCAL VOC challenge has measured it since 2010."""

import numpy as np


def precision_recall(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of the images down to each place of the ranking.

    Args:
        targets: (N,) positive where the image is of the class.
        scores: (N,) highest first in the ranking; equal ones keep their order.

    Returns:
        (N,) precisions and (N,) recalls, float64.

    Raises:
        ValueError: no image is of the class, or a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("average precision of scores of which some are NaN")
    is_positive = targets[np.argsort(-scores, kind="stable")] > 0
    num_positives = is_positive.sum()
    if num_positives == 0:
        raise ValueError("average precision of a class without a single image")
    num_found = is_positive.cumsum()
    return num_found / np.arange(1, len(num_found) + 1), num_found / num_positives


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Area under the envelope of precision over recall, in [0, 1]; arguments as above.

    The envelope at a recall is the highest precision at that recall or above.
    """
    precision, recall = precision_recall(targets, scores)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())
