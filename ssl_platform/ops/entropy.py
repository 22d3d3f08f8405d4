"""Measures of how evenly a distribution or a spectrum is spread."""

import math

import torch
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over the last dimension; 0 log 0 counts as 0."""
    return torch.special.entr(probabilities).sum(dim=-1)


def effective_rank(covariance: Tensor, *, noise: float = 0.0) -> Tensor:
    """exp of the entropy of the normalised eigenvalues of a (D, D) covariance: 1 to D.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007, with the eigenvalues of the covariance.

    Args:
        noise: eigenvalues up to this are rounding and count as 0.

    Returns:
        A scalar; NaN when the covariance is not finite.
    """
    if not covariance.isfinite().all():
        return covariance.new_tensor(float("nan"))
    eigenvalues = torch.linalg.eigvalsh(covariance)
    eigenvalues = eigenvalues.where(eigenvalues > noise, 0)
    # by a power of two, which loses nothing: their sum might overflow
    eigenvalues = eigenvalues / 2.0 ** (math.frexp(eigenvalues.amax().item())[1] - 1)
    return entropy(
        eigenvalues / eigenvalues.sum().clamp_min(torch.finfo(covariance.dtype).tiny)
    ).exp()


def participation_ratio(covariance: Tensor) -> Tensor:
    """(sum of the eigenvalues)^2 / sum of their squares of a (D, D) covariance: 1 to D.

    A number of dimensions that needs no eigenvalues: 1 on a line, D where all directions are
    equal. Gao et al., bioRxiv 214262 (2017), equation 2. NaN where there is no variance.
    """
    return covariance.trace().square() / covariance.square().sum()
