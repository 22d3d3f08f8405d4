"""Tables of features that may be larger than memory, and sums over them, block by block."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

BLOCK = 8192  # rows that are read at once


class Table(Protocol):
    """(N, D) features: a tensor, in memory or mapped from a file, or one computed as it is read."""

    @property
    def shape(self) -> Any:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Tensor: ...


class Centred:
    """A table minus a mean, which is subtracted as rows are read: a large file is not copied.

    Args:
        table: (N, D).
        mean: (D,); its type is that of the rows.
    """

    def __init__(self, table: Table, mean: Tensor):
        self.table, self.mean = table, mean

    @property
    def shape(self) -> Any:
        """(N, D)."""
        return self.table.shape

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: Any) -> Tensor:
        return self.table[rows].to(self.mean.dtype) - self.mean


class Chosen:
    """Some rows of a table, which are read when they are asked for.

    Args:
        table: (N, D).
        rows: (M,) int64, which of its rows.
    """

    def __init__(self, table: Table, rows: Tensor):
        self.table, self.rows = table, rows

    @property
    def shape(self) -> Any:
        """(M, D)."""
        return (len(self.rows), *self.table.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Tensor:
        return self.table[self.rows[rows]]


def blocks(table: Table) -> Iterator[Tensor]:
    """All rows in order, some thousand at a time."""
    for start in range(0, len(table), BLOCK):
        yield table[start : start + BLOCK]


def mean_of(table: Table) -> Tensor:
    """(D,) float32.

    Raises:
        ValueError: a row is not finite.
    """
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    for part in blocks(table):
        total += part.double().sum(dim=0)
    if not total.isfinite().all():
        raise ValueError("features: some of the rows are NaN or infinite")
    return (total / len(table)).float()


def principal_components(table: Table, num_components: int) -> tuple[Tensor, Tensor]:
    """Mean and principal directions, by the covariance.

    Args:
        table: (N, D).
        num_components: at most as many as min(N, D) are found.

    Returns:
        (D,) mean and (D, components) directions of unit length, of the largest variance first;
        both float32.

    Raises:
        ValueError: a row is not finite.
    """
    from scipy import linalg  # a tenth of a second, which a training does not need

    num_rows, dim = table.shape
    mean = mean_of(table)
    covariance = torch.zeros(dim, dim, dtype=torch.float64)
    for part in blocks(Centred(table, mean.double())):
        covariance += part.T @ part
    first = dim - min(num_components, num_rows, dim)
    _, directions = linalg.eigh(covariance.numpy(), subset_by_index=[first, dim - 1])
    return mean, torch.from_numpy(directions).flip(1).float()
