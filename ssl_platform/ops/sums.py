"""Sums over batches by name: added up on a rank, and over ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_platform import distributed

Sums = dict[str, Tensor]


def added(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Sums:
    """New sums, of both; one that is empty counts as zeros."""
    if not first or not second:
        return {name: total.clone() for name, total in (first or second).items()}
    return {name: total + second[name] for name, total in first.items()}


def over_ranks(sums: Mapping[str, Tensor]) -> Sums:
    """New sums, of all ranks, of one dtype; collective, one all-reduce."""
    joined = torch.cat([total.flatten() for total in sums.values()])
    parts = distributed.all_reduce_sum(joined).split([total.numel() for total in sums.values()])
    return {
        name: part.view(total.shape)
        for part, (name, total) in zip(parts, sums.items(), strict=True)
    }
