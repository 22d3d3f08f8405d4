"""Rows of samples that lie on several ranks, cut anew for another number of ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor


def reshard(
    parts: Sequence[Tensor], *, dim: int, num_rows: int, world_size: int
) -> tuple[Tensor, ...]:
    """The parts of these ranks, from those of another number of ranks.

    Each part holds, step after step along ``dim``, one rank's rows of the step's total batch.

    Args:
        parts: of equal shape, in the order of the ranks.
        num_rows: of one rank in one step, from now on.
        world_size: ranks from now on.

    Returns:
        The parts of these ranks.

    Raises:
        ValueError: the parts are of other batches.
    """
    rows_before, rest = divmod(num_rows * world_size, len(parts))
    length = parts[0].shape[dim]
    if rest or length % rows_before:
        raise ValueError(
            f"{length} rows of each rank are not of batches of {num_rows * world_size}: the batch "
            "size is another, too; change it before or after the number of processes, not with it"
        )
    shape = (length // rows_before, rows_before)
    steps = torch.cat([part.unflatten(dim, shape) for part in parts], dim + 1)
    return tuple(mine.flatten(dim, dim + 1) for mine in steps.split(num_rows, dim + 1))
