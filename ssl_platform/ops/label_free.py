"""A measure of features that needs no labels.

Others were tried, and do not tell which training is better: ``benchmarks/label_free.py``.
"""

import torch.nn.functional as F
from torch import Tensor

NEAR = 0.1  # part of the images among which a crop has to be, to be found
BLOCK = 1024  # rows compared at once


def found_share(first: Tensor, second: Tensor) -> float:
    """How often a crop finds the other crop of its image: among the nearest tenth, by cosine.

    Each crop of one set is compared with all of the other set, in both directions; a row that is
    not finite is never found. The nearest neighbour alone would be another question: features of
    what images have in common find the image's kind, and mistake one image for another.

    Args:
        first, second: (N, D) features of one crop of each of N images, and of another one; N >= 2.

    Returns:
        Share from 0 to 1; 0.1 by chance, and where all features are the same.
    """
    first, second = (F.normalize(part.double(), dim=1) for part in (first, second))
    return (_found(first, second) + _found(second, first)) / 2


def _found(queries: Tensor, others: Tensor) -> float:
    """Share of the queries that find their own row of the others; both of unit length."""
    num_near, found = max(1, round(NEAR * len(others))), 0.0
    for start in range(0, len(queries), BLOCK):
        cosines = queries[start : start + BLOCK] @ others.T
        own = cosines.diagonal(start)[:, None]
        nearer, equal = (cosines > own).sum(dim=1), (cosines == own).sum(dim=1)
        # of equally near ones any may come first
        chances = ((num_near - nearer) / equal.clamp_min(1)).clamp(0, 1)
        found += chances[own[:, 0].isfinite()].sum().item()
    return found / len(queries)
