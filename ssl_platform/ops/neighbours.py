"""Each row's nearest others in one table of features, and what they tell of the row."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.ops.feature_table import Table
from ssl_platform.ops.knn import BANK_BLOCK, nearest_neighbours

SHARE = 8192  # rows whose neighbours are looked for at once, by one rank
TRIED = 512  # rows that are compared with others to measure the time
SCALE = 1.4826  # times the median absolute deviation: the standard deviation of a normal one


class Neighbours(NamedTuple):
    """The nearest others of N rows by cosine, nearest first."""

    cosines: Tensor  # (N, k) float32
    rows: Tensor  # (N, k) int64


def self_neighbours(
    table: Table,
    *,
    k: int,
    device: torch.device,
    done: Callable[[int], None] = lambda rows: None,
) -> Neighbours:
    """The k nearest other rows of each row of a table; exact. Collective.

    Every rank has the whole table and looks for the neighbours of a share of its rows. The shares
    do not depend on the number of ranks, and so do not the answers. Of the (N, N) cosines only a
    block of `nearest_neighbours` is in memory.

    Args:
        table: (N, D) finite features, N at least 2.
        k: at most N - 1 are found.
        device: where it is computed, and where the answer is.
        done: called after each share of this rank with its number of rows.
    """
    total = len(table)
    k = min(k, total - 1)
    cosines = torch.zeros(total, k, device=device)
    rows = torch.zeros(total, k, dtype=torch.int64, device=device)
    shares = range(0, total, SHARE)
    for start in shares[distributed.rank() :: distributed.world_size()]:
        queries = table[start : start + SHARE].to(device)
        found, places = nearest_neighbours(queries, table, k=k + 1)
        own = torch.arange(start, start + len(queries), device=device)[:, None]
        # a row with more than k copies may not be among its own neighbours: then the last goes
        found, order = found.masked_fill(places == own, -torch.inf).topk(k, dim=1)
        cosines[start : start + len(queries)] = found
        rows[start : start + len(queries)] = places.gather(1, order)
        done(len(queries))
    return Neighbours(distributed.all_reduce_sum(cosines), distributed.all_reduce_sum(rows))


def expected_seconds(table: Table, *, k: int, device: torch.device) -> float:
    """What `self_neighbours` takes, from a few rows against a block of the table."""
    queries, bank = table[:TRIED].to(device), table[:BANK_BLOCK]
    nearest_neighbours(queries[:1], bank, k=k + 1)  # the first call loads what the next ones use
    start = time.perf_counter()
    nearest_neighbours(queries, bank, k=k + 1)[0].sum().item()  # waits for the device
    seconds = time.perf_counter() - start
    compared = len(queries) * len(bank)
    return seconds * len(table) ** 2 / compared / distributed.world_size()


def unusual_distances(distances: Tensor) -> Tensor:
    """How far each distance is from the usual ones, in standard deviations of their logarithms.

    (log d - median) / (1.4826 * MAD), a modified z-score (Iglewicz and Hoaglin, "How to detect and
    handle outliers", 1993) of the logarithm, since distances are not below 0. The median and the
    median absolute deviation do not move when a few distances are extreme.

    Args:
        distances: (N,) 0 or more; of 0 the result is minus infinity, as a copy's.

    Returns:
        (N,) float64; 0 where all usual distances are equal.
    """
    logs = distances.double().log()
    usual, spread = _usual(logs)
    if spread == 0:
        return torch.where(logs.isinf(), logs, torch.zeros_like(logs))
    return (logs - usual) / spread


def distance_at(distances: Tensor, deviations: float) -> float:
    """The distance whose `unusual_distances` would be ``deviations``; 0 where none would be."""
    usual, spread = _usual(distances.double().log())
    return math.exp(usual + deviations * spread) if spread else 0.0


def _usual(logs: Tensor) -> tuple[float, float]:
    """Median and robust standard deviation; 0 for the latter where most are equal."""
    usual = logs.median()
    spread = float(SCALE * (logs - usual).abs().median())
    return float(usual), spread if math.isfinite(spread) else 0.0
