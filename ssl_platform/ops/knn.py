"""Weighted k-nearest-neighbour classification by cosine (Wu et al., arXiv:1805.01978, 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.table import Table


@torch.no_grad()
def nearest_neighbours(
    queries: Tensor, bank: Table, *, k: int, query_block: int = 1024, bank_block: int = 65536
) -> tuple[Tensor, Tensor]:
    """The rows of a bank that are nearest to each query by cosine, nearest first.

    Args:
        queries: (N, D) features; normalised here.
        bank: (M, D) features; normalised here. It is read once, block by block, and compared on
            the queries' device.
        k: number of neighbours; at most M are found.
        query_block, bank_block: rows compared at once, which bounds the memory to their product.

    Returns:
        (N, k) cosines and (N, k) int64 positions in the bank; computed in float32 at least.
    """
    queries = F.normalize(queries.to(torch.promote_types(queries.dtype, torch.float32)), dim=1)
    k = min(k, len(bank))
    best = queries.new_full((len(queries), k), -torch.inf)
    positions = torch.zeros(best.shape, dtype=torch.int64, device=queries.device)
    for first in range(0, len(bank), bank_block):
        rows = F.normalize(bank[first : first + bank_block].to(queries), dim=1)
        for start in range(0, len(queries), query_block):
            part = slice(start, start + query_block)
            cosines, found = (queries[part] @ rows.T).topk(min(k, len(rows)), dim=1)
            cosines = torch.cat([best[part], cosines], dim=1)
            found = torch.cat([positions[part], found + first], dim=1)
            best[part], order = cosines.topk(k, dim=1)
            positions[part] = found.gather(1, order)
    return best, positions


def weighted_votes(
    cosines: Tensor, labels: Tensor, *, temperature: float, num_classes: int
) -> Tensor:
    """Votes of neighbours for their classes, each of weight exp(cosine / temperature).

    Args:
        cosines: (N, k) of the neighbours, nearest first.
        labels: (N, k) int64 in [0, num_classes).

    Returns:
        (N, num_classes), relative to the weight of the nearest neighbour: it votes with 1 at any
        temperature.
    """
    weights = ((cosines - cosines[:, :1]) / temperature).exp()
    votes = cosines.new_zeros(len(cosines), num_classes)
    return votes.scatter_add_(1, labels, weights)


def knn_votes(
    queries: Tensor,
    bank: Table,
    bank_labels: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> Tensor:
    """Class votes of each query by its k nearest rows of the bank; at most all of them.

    Args:
        queries: (N, D) features.
        bank: (M, D) features of labelled samples.
        bank_labels: (M,) int64 in [0, num_classes).

    Returns:
        (N, num_classes), see `weighted_votes`.
    """
    cosines, neighbours = nearest_neighbours(queries, bank, k=k)
    return weighted_votes(
        cosines, bank_labels[neighbours], temperature=temperature, num_classes=num_classes
    )
