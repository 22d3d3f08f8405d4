"""Spherical k-means over embeddings that are spread over ranks (arXiv:2006.09882, appendix D)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.distributed import all_reduce_sum, broadcast, rank
from ssl_platform.ops.finite import refuse_bad_rows

BLOCK_ENTRIES = 2**20  # dot products held at once: 4 MiB in float32
SHORT = 1e-12  # a sum of unit rows up to this length has a direction by rounding alone
GROUP = 64  # centroids whose largest dot product is taken first


class Clustering(NamedTuple):
    """What k-means ends with."""

    centroids: Tensor  # (K, D), unit length, the same on all ranks to the bit
    assignments: Tensor  # (N,) int64, the nearest centroid of each of this rank's rows


@torch.no_grad()
def spherical_kmeans(
    embeddings: Tensor, *, num_clusters: int, num_iters: int, generator: torch.Generator
) -> Clustering:
    """Cluster unit vectors by their cosines, from rows of the first rank as initial centroids.

    The samples are the union of the rows of every rank. Beyond its arguments a rank holds 16 bytes
    for each row and, for any K, some 10 MiB (float32) and a few times the centroids.

    Args:
        embeddings: (N, D) unit rows of this rank, computed in their dtype, half precision in
            float32 (which copies them). N may differ between ranks, and be 0.
        num_clusters: K.
        num_iters: iterations; with 0 the rows are only assigned.
        generator: on the CPU, draws K different rows; only the first rank's counts.

    Raises:
        ValueError: the first rank has fewer than K rows to draw from (on all ranks), or rows are
            not finite (on the rank that has them).
    """
    refuse_bad_rows(embeddings=embeddings)
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    return lloyd(embeddings, _random_rows(embeddings, num_clusters, generator), num_iters)


@torch.no_grad()
def lloyd(embeddings: Tensor, centroids: Tensor, num_iters: int) -> Clustering:
    """Lloyd's iterations, and the assignments to the centroids that they end with.

    An iteration assigns each row to the centroid with the largest dot product, the lowest of equal
    ones, and makes each centroid the mean of its rows, of unit length. A centroid without rows, or
    whose rows cancel, stays where it is.

    Args:
        embeddings: (N, D) unit rows of this rank, at least float32.
        centroids: (K, D), of unit length and the same dtype, equal on all ranks.
    """
    for _ in range(num_iters):
        assignments = _nearest(embeddings, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, assignments, embeddings)
        counts = torch.bincount(assignments, minlength=len(centroids))
        all_reduce_sum(sums)
        is_used = all_reduce_sum(counts)[:, None] > 0
        is_used &= sums.norm(dim=1, keepdim=True) > SHORT
        # sums instead of means: the division by the count would be lost in the normalisation
        centroids = F.normalize(torch.where(is_used, sums, centroids), dim=1)
    return Clustering(centroids, _nearest(embeddings, centroids))


def _random_rows(embeddings: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """(num, D) different rows of the first rank, the same on all ranks."""
    available = broadcast(torch.tensor(len(embeddings), device=embeddings.device)).item()
    if num > available:
        raise ValueError(
            f"num_clusters={num}: the first process has {available} embeddings to draw them from"
        )
    rows = embeddings.new_empty(num, embeddings.shape[1])
    if rank() == 0:
        chosen = torch.randperm(len(embeddings), generator=generator)[:num]
        rows.copy_(embeddings[chosen.to(embeddings.device)])
    return broadcast(rows)


def _nearest(embeddings: Tensor, centroids: Tensor) -> Tensor:
    """(N,) the centroid with the largest dot product, the lowest of equal ones."""
    num_groups = -(-len(centroids) // GROUP)
    block = max(1, BLOCK_ENTRIES // (num_groups * GROUP))
    shape = min(block, len(embeddings)), num_groups, GROUP
    # minus infinity in the last group's places beyond K, which never win
    products = embeddings.new_full(shape, -torch.inf)
    nearest = torch.empty(len(embeddings), dtype=torch.int64, device=embeddings.device)
    for start in range(0, len(embeddings), block):
        rows = embeddings[start : start + block]
        products_G = products[: len(rows)]  # (rows, groups, centroids of a group)
        torch.mm(rows, centroids.T, out=products_G.flatten(1)[:, : len(centroids)])
        # amax is many times as fast as argmax: the best group by amax, then argmax within it
        group = products_G.amax(dim=2).argmax(dim=1, keepdim=True)
        best = products_G.take_along_dim(group[:, None], dim=1)[:, 0]
        nearest[start : start + block] = group[:, 0] * GROUP + best.argmax(dim=1)
    return _first_of_equal(centroids)[nearest]


def _first_of_equal(centroids: Tensor) -> Tensor:
    """(K,) for each centroid the lowest one equal to it, whose dot products may round otherwise."""
    _, place = centroids.unique(dim=0, return_inverse=True)
    number = torch.arange(len(centroids), device=centroids.device)
    return number.scatter_reduce(0, place, number, "amin", include_self=False)[place]
