"""Whitened principal components, in which cosines tell images apart better."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_platform.ops.feature_table import Centred, Table, blocks, principal_components

SAMPLES_PER_COMPONENT = 4  # fewer would not tell the variance of a component
SMALLEST_VARIANCE = 1e-6  # of the largest; below it a component is rounding


class Whitening(NamedTuple):
    """A linear map of features to components of mean 0 and variance 1."""

    mean: Tensor  # (D,) float32
    directions: Tensor  # (D, C) float32, each over the standard deviation along it

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, D) features of any dtype to (N, C) float32."""
        return (rows.float() - self.mean) @ self.directions


def whitening(table: Table, num_components: int) -> Whitening:
    """Learn the map from the features that it is for.

    The features of a trunk share a large mean and a few strong directions, so that all cosines are
    near 1 and say little. Jegou and Chum, "Negative evidences and co-occurences in image retrieval:
    the benefit of PCA and whitening", ECCV 2012.

    Args:
        table: (N, D) finite features.
        num_components: C, at most; of few samples or features fewer are found, but one.
    """
    most = max(1, min(num_components, len(table) // SAMPLES_PER_COMPONENT))
    mean, directions = principal_components(table, most)
    squares = torch.zeros(directions.shape[1], dtype=torch.float64)
    for part in blocks(Centred(table, mean)):
        squares += (part @ directions).double().square().sum(dim=0)
    kept = squares >= SMALLEST_VARIANCE * squares.max()
    deviations = (squares[kept] / len(table)).sqrt().clamp_min(1e-12)
    return Whitening(mean, directions[:, kept] / deviations.float())


def whitened(table: Table, whiten: Whitening) -> Tensor:
    """(N, C) float32 of a whole table, 4 bytes a number in memory."""
    return torch.cat([whiten(part) for part in blocks(table)])
