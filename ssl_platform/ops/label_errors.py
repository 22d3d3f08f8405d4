"""Probable label errors, by the votes of neighbours (confident learning)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_platform.ops.knn import weighted_votes
from ssl_platform.ops.neighbours import Neighbours

BLOCK = 65_536  # rows whose votes for all classes are in memory at once


class LabelVotes(NamedTuple):
    """What the neighbours of each of N rows say of its label."""

    own: Tensor  # (N,) float32, their part of the votes for the row's label; NaN without votes
    suggested: Tensor  # (N,) int64, the other class with the most votes; -1 without votes
    margin: Tensor  # (N,) float32, own less the part of that class: -1 to 1, low is suspicious
    is_error: Tensor  # (N,) bool, whether the label is a probable error


@torch.no_grad()
def label_votes(
    neighbours: Neighbours,
    labels: Tensor,
    *,
    groups: Tensor,
    num_classes: int,
    temperature: float,
) -> LabelVotes:
    """Hold each label against a vote of the row's neighbours, as Northcutt et al. do.

    The probabilities are those of kNN, each row judged by the others (leave-one-out
    cross-validation). A label is a probable error where the row belongs to an off-diagonal part of
    the confident joint (arXiv:1911.00068, section 3.1): of the classes whose probability is at
    least the mean probability of that class among the rows labelled with it, the most probable one
    is another class. The margin is the normalised margin that they rank by (section 4).

    Args:
        neighbours: of the N rows among themselves.
        labels: (N,) int64 classes, -1 for none; such rows have no vote.
        groups: (N,) int64; a copy has no vote on its own copies, -1 is in no group.
        num_classes: C.
        temperature: a vote weighs exp(cosine / temperature).
    """

    def votes() -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(labels), BLOCK):
            part = slice(start, start + BLOCK)
            yield part, _probabilities(neighbours, labels, groups, part, num_classes, temperature)

    own = torch.full((len(labels),), torch.nan)
    for part, probabilities in votes():
        own[part] = probabilities.gather(1, labels[part, None].clamp_min(0))[:, 0]
    own[labels < 0] = torch.nan
    thresholds = _means_by_class(own, labels, num_classes)
    suggested = torch.full((len(labels),), -1)
    margin, is_error = torch.full_like(own, torch.nan), torch.zeros(len(labels), dtype=torch.bool)
    for part, probabilities in votes():
        given = labels[part, None].clamp_min(0)
        others = probabilities.scatter(1, given, -1)
        best, place = others.max(dim=1)
        has_votes = own[part].isfinite()
        suggested[part] = torch.where(has_votes, place, -1)
        margin[part] = torch.where(has_votes, own[part] - best, torch.nan)
        confident = probabilities.masked_fill(~(probabilities >= thresholds), -1)
        most, chosen = confident.max(dim=1)
        is_error[part] = has_votes & (most > 0) & (chosen != given[:, 0])
    return LabelVotes(own, suggested, margin, is_error)


def _probabilities(
    neighbours: Neighbours,
    labels: Tensor,
    groups: Tensor,
    part: slice,
    num_classes: int,
    temperature: float,
) -> Tensor:
    """(rows, C) parts of the votes; NaN where nobody votes."""
    rows = neighbours.rows[part]
    own_group = groups[part, None]
    is_copy = (groups[rows] == own_group) & (own_group >= 0)
    cosines = neighbours.cosines[part].masked_fill(is_copy | (labels[rows] < 0), -torch.inf)
    cosines, order = cosines.sort(dim=1, descending=True, stable=True)
    cosines[cosines[:, 0].isinf()] = torch.nan
    their = labels[rows.gather(1, order)].clamp_min(0)
    votes = weighted_votes(cosines, their, temperature=temperature, num_classes=num_classes)
    return votes / votes.sum(dim=1, keepdim=True)


def _means_by_class(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(C,) means of the finite values of each class; infinite for a class without any."""
    known = values.isfinite()
    sums = torch.zeros(num_classes).index_add_(0, labels[known], values[known])
    counts = torch.bincount(labels[known], minlength=num_classes)
    return torch.where(counts > 0, sums / counts, torch.inf)
