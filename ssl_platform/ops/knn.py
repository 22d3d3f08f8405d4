"""Weighted k-nearest-neighbour classification by cosine (Wu et al., arXiv:1805.01978, 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def knn_votes(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
    block: int = 1024,
) -> Tensor:
    """Class votes of each query: its k nearest rows of the bank, weighted exp(cosine /
    temperature).

    Args:
        queries: (N, D) features; normalised here.
        bank: (M, D) features of labelled samples; normalised here.
        bank_labels: (M,) int64 in [0, num_classes).
        k: number of neighbours; at most M are used.
        block: queries compared at once, which bounds the memory to ``block`` x M.

    Returns:
        (N, num_classes) votes.
    """
    queries, bank = F.normalize(queries, dim=1), F.normalize(bank, dim=1)
    votes = queries.new_zeros(len(queries), num_classes)
    for start in range(0, len(queries), block):
        cosines = queries[start : start + block] @ bank.T
        nearest, neighbours = cosines.topk(min(k, len(bank)), dim=1)
        # relative to the nearest: the largest weight is 1 at any temperature
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        votes[start : start + block].scatter_add_(1, bank_labels[neighbours], weights)
    return votes
