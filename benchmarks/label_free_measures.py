"""The measures that benchmarks/label_free.py compares with what is measured in each run.

Those of a spectrum are named as their papers name them, and computed in float64 on the CPU.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ssl_platform.ops.entropy import entropy
from ssl_platform.ops.label_free import found_share

EPSILON = 1e-7  # added to each share of a spectrum, as in RankMe's paper
DELTA = 1e-4  # added to the variances within an image, as in LiDAR's paper

Features = Mapping[str, Tensor]  # trunk, head: (N, 2, D) of crops as the training draws them


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


MEASURES: dict[str, Callable[[Features], float]] = {}


def _add(name: str, compute: Callable[[Tensor], float]) -> None:
    for part in ("trunk", "head"):
        MEASURES[f"{name} {part}"] = lambda features, part=part: compute(features[part])


_add("own crops found", lambda views: 100 * found_share(*views.unbind(1)))
_add("rankme", lambda views: rankme(views.flatten(0, 1)))
_add("lidar", lidar)
_add("alpha", lambda views: alpha_req(views.flatten(0, 1), first=1, last=views.shape[2]))
_add("alpha 5-50", lambda views: alpha_req(views.flatten(0, 1), first=5, last=50))
