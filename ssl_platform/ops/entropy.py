"""Measures of how evenly a distribution or a spectrum is spread."""

import torch
from torch import Tensor


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over the last dimension; 0 log 0 counts as 0."""
    return torch.special.entr(probabilities).sum(dim=-1)


def effective_rank(covariance: Tensor) -> Tensor:
    """exp of the entropy of the normalised eigenvalues of a (D, D) covariance: 1 to D.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007, with the eigenvalues of the covariance.
    """
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp_min(0)
    return entropy(
        eigenvalues / eigenvalues.sum().clamp_min(torch.finfo(covariance.dtype).tiny)
    ).exp()
