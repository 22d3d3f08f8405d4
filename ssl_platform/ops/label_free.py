"""Measures of features that need no labels. Those of a spectrum are named as their papers name
them, and computed in float64 on the CPU.

`ssl_platform.ops.entropy.effective_rank` is none of them: it takes eigenvalues of a covariance,
RankMe the singular values of the features themselves.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.entropy import entropy

NEAR = 0.1  # part of the images among which a crop has to be, to be found
BLOCK = 1024  # rows compared at once
EPSILON = 1e-7  # added to each share of a spectrum, as in RankMe's paper
DELTA = 1e-4  # added to the variances within an image, as in LiDAR's paper


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


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., arXiv:2210.02885, equation 1).

    exp of the entropy of the singular values' shares of their sum, each plus 1e-7; the features are
    not centred.

    Args:
        features: (N, D), finite.

    Returns:
        1 to about min(N, D); NaN where all features are zero.
    """
    return _smooth_rank(torch.linalg.svdvals(features.double().cpu()))


def lidar(features: Tensor) -> float:
    """LiDAR (Thilak et al., arXiv:2312.04000, section 4): each image is a class, its crops are its
    samples.

    exp of the entropy of the eigenvalues' shares, as `rankme`, of ``S_w^-1/2 S_b S_w^-1/2``: S_b is
    the covariance of the images' mean features, S_w that of crops about the mean of their image,
    plus 1e-4 on its diagonal.

    Args:
        features: (N, Q, D), finite: Q crops of each of N images.

    Returns:
        1 to about D; NaN where all images have the same mean.
    """
    features = features.double().cpu()
    means = features.mean(dim=1)  # (N, D)
    within = (features - means[:, None]).flatten(0, 1)
    between = means - means.mean(dim=0)
    s_w = within.T @ within / len(within)
    s_w.diagonal().add_(DELTA)
    s_b = between.T @ between / len(between)
    values, vectors = torch.linalg.eigh(s_w)
    whiten = vectors / values.sqrt()  # S_w^-1/2 up to a rotation, which keeps eigenvalues
    return _smooth_rank(torch.linalg.eigvalsh(whiten.T @ s_b @ whiten).clamp_min(0))


def alpha_req(features: Tensor, *, first: int, last: int) -> float:
    """alpha-ReQ (Agrawal et al., NeurIPS 2022): how fast the spectrum of the covariance falls.

    Minus the slope of the line of least squares through the logarithm of an eigenvalue over that of
    its rank; near 1 is said to be best.

    Args:
        features: (N, D), finite.
        first, last: ranks of the eigenvalues that the line is fitted to, from 1; those beyond D or
            of rounding are left out.

    Returns:
        NaN where fewer than two eigenvalues are left.
    """
    features = features.double().cpu()
    centred = features - features.mean(dim=0)
    values = torch.linalg.svdvals(centred).square()
    floor = values.amax() * max(features.shape) * torch.finfo(values.dtype).eps
    ranks = torch.arange(1, len(values) + 1, dtype=values.dtype)
    chosen = (values > floor) & (ranks >= first) & (ranks <= last)
    if chosen.sum() < 2:
        return math.nan
    x, y = ranks[chosen].log(), values[chosen].log()
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


def _smooth_rank(spectrum: Tensor) -> float:
    return entropy(spectrum / spectrum.sum() + EPSILON).exp().item()
