"""Spherical k-means over embeddings that are spread over ranks (arXiv:2006.09882, appendix D)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.distributed import all_reduce_sum, broadcast, rank

BLOCK_ENTRIES = 2**22  # dot products held at once: 16 MiB in float32


class Clustering(NamedTuple):
    centroids: Tensor  # (K, D), unit length, the same on all ranks to the bit
    assignments: Tensor  # (N,) int64, the nearest centroid of each of this rank's rows


@torch.no_grad()
def spherical_kmeans(
    embeddings: Tensor,
    *,
    num_clusters: int,
    num_iters: int,
    generator: torch.Generator | None = None,
    initial_centroids: Tensor | None = None,
) -> Clustering:
    """Cluster unit vectors by their cosines.

    The samples are the union of the rows of every rank. An iteration assigns each row to the
    centroid with the largest dot product, the lowest of equal ones, and makes each centroid the
    mean of its rows, of unit length. A centroid without rows stays where it is. The assignments are
    those to the final centroids.

    Args:
        embeddings: (N, D) unit rows of this rank; N may differ between ranks. Half precision is
            computed in float32.
        num_clusters: K.
        num_iters: iterations; with 0 the rows are only assigned.
        generator: on the CPU, draws the initial centroids; None is torch's own. Only the first
            rank's counts.
        initial_centroids: (K, D), of unit length and equal on all ranks; None draws K different
            rows of the first rank.

    Raises:
        ValueError: the first rank has fewer than K rows, or an argument is out of range.
    """
    if num_clusters < 1:
        raise ValueError(f"num_clusters={num_clusters}: at least 1")
    if num_iters < 0:
        raise ValueError(f"num_iters={num_iters}: 0 or more")
    embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    if initial_centroids is None:
        centroids = _random_rows(embeddings, num_clusters, generator)
    else:
        centroids = initial_centroids.to(embeddings, copy=True)
    if centroids.shape != (num_clusters, embeddings.shape[1]):
        raise ValueError(
            f"initial_centroids: shape {tuple(centroids.shape)}, must be "
            f"{(num_clusters, embeddings.shape[1])}"
        )
    for _ in range(num_iters):
        assignments = _nearest(embeddings, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, assignments, embeddings)
        counts = torch.bincount(assignments, minlength=num_clusters)
        all_reduce_sum(sums)
        is_used = all_reduce_sum(counts)[:, None] > 0
        # the length of a mean is lost again, so that dividing by the count would change nothing
        centroids = F.normalize(torch.where(is_used, sums, centroids), dim=1)
    return Clustering(centroids, _nearest(embeddings, centroids))


def _random_rows(embeddings: Tensor, num: int, generator: torch.Generator | None) -> Tensor:
    """(num, D) different rows of the first rank, the same on all ranks."""
    available = broadcast(torch.tensor(len(embeddings), device=embeddings.device)).item()
    if num > available:
        raise ValueError(
            f"num_clusters={num}: the first process has {available} embeddings to draw them from"
        )
    rows = embeddings.new_empty(num, embeddings.shape[1])
    if rank() == 0:
        chosen = torch.randperm(len(embeddings), generator=generator)[:num]
        rows = embeddings[chosen.to(embeddings.device)]
    return broadcast(rows)


def _nearest(embeddings: Tensor, centroids: Tensor) -> Tensor:
    """(N,) the centroid with the largest dot product, the lowest of equal ones."""
    assignments = torch.empty(len(embeddings), dtype=torch.int64, device=embeddings.device)
    block = max(1, BLOCK_ENTRIES // len(centroids))
    products = embeddings.new_empty(min(block, len(embeddings)), len(centroids))
    highest = embeddings.new_empty(len(products))
    for start in range(0, len(embeddings), block):
        rows = embeddings[start : start + block]
        torch.mm(rows, centroids.T, out=products[: len(rows)])
        # quicker than argmax, and the first of equal ones as well
        out = highest[: len(rows)], assignments[start : start + block]
        torch.max(products[: len(rows)], dim=1, out=out)
    return assignments
