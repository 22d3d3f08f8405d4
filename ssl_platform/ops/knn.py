"""Weighted k-nearest-neighbour classification by cosine (Wu et al., arXiv:1805.01978, 3.4)."""

import logging

import torch
from torch import Tensor

from ssl_platform.ops.feature_table import Table

logger = logging.getLogger(__name__)

QUERY_BLOCK, BANK_BLOCK = 1024, 65536  # rows compared at once: bounds the memory to their product


@torch.no_grad()
def nearest_neighbours(queries: Tensor, bank: Table, *, k: int) -> tuple[Tensor, Tensor]:
    """The rows of a bank that are nearest to each query by cosine, nearest first.

    A row of the bank that is NaN or infinite is left out, with a warning: its cosine is -inf. Such
    a query has cosines of NaN. The cosine of a row of zeros is 0.

    Args:
        queries: (N, D) features; normalised here.
        bank: (M, D) features; normalised here. It is read once, block by block, and compared on
            the queries' device.
        k: number of neighbours; at most M are found.

    Returns:
        (N, k) cosines and (N, k) int64 positions in the bank; computed in float32 at least.

    Raises:
        ValueError: no row of the bank is finite.
    """
    queries, is_bad = _unit(queries.to(torch.promote_types(queries.dtype, torch.float32)))
    num_bad_queries, num_bad = int(is_bad.sum()), 0
    k = min(k, len(bank))
    best = queries.new_full((len(queries), k), -torch.inf)
    positions = torch.zeros(best.shape, dtype=torch.int64, device=queries.device)
    for first in range(0, len(bank), BANK_BLOCK):
        rows, is_bad = _unit(bank[first : first + BANK_BLOCK].to(queries))
        bad = is_bad.nonzero().flatten()
        rows[bad] = 0
        num_bad += len(bad)
        for start in range(0, len(queries), QUERY_BLOCK):
            part = slice(start, start + QUERY_BLOCK)
            cosines = (queries[part] @ rows.T).index_fill_(1, bad, -torch.inf)
            cosines, places = cosines.topk(min(k, len(rows)), dim=1)
            cosines = torch.cat([best[part], cosines], dim=1)
            places = torch.cat([positions[part], places + first], dim=1)
            best[part], order = cosines.topk(k, dim=1)
            positions[part] = places.gather(1, order)
    _report_bad_rows(num_bad, len(bank), num_bad_queries, len(queries))
    return best, positions


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) rows of unit length, and (N,) which are not finite or too long to be squared: NaN."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    is_bad = ~lengths.isfinite()
    return (rows / lengths.clamp_min(1e-12)).masked_fill_(is_bad, torch.nan), is_bad[:, 0]


def _report_bad_rows(num_bad: int, num_rows: int, num_bad_queries: int, num_queries: int) -> None:
    if num_bad and num_bad == num_rows:
        raise ValueError(f"kNN: none of the {num_rows} rows of the bank is finite")
    if num_bad:
        logger.warning(
            "kNN: %d of the %d rows of the bank are NaN or infinite and have no vote",
            num_bad,
            num_rows,
        )
    if num_bad_queries:
        logger.warning(
            "kNN: %d of the %d queries are NaN or infinite and count as wrong",
            num_bad_queries,
            num_queries,
        )


def weighted_votes(
    cosines: Tensor, labels: Tensor, *, temperature: float, num_classes: int
) -> Tensor:
    """Votes of neighbours for their classes, each of weight exp(cosine / temperature).

    Args:
        cosines: (N, k) of the neighbours, nearest first; -inf for one that has no vote.
        labels: (N, k) int64 in [0, num_classes).

    Returns:
        (N, num_classes), relative to the weight of the nearest neighbour: it votes with 1 at any
        temperature. NaN where the query has no cosines.
    """
    # below it 0 / temperature would be NaN
    temperature = max(temperature, torch.finfo(cosines.dtype).tiny)
    weights = ((cosines - cosines[:, :1]) / temperature).exp()
    votes = cosines.new_zeros(len(cosines), num_classes)
    return votes.scatter_add_(1, labels, weights).masked_fill_(cosines[:, :1].isnan(), torch.nan)


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
