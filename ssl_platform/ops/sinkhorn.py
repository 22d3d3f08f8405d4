"""Balanced assignment of samples to prototypes: soft codes of a batch (SwAV, arXiv:2006.09882,
section 3.1) and hard labels of a whole data set (SeLa, arXiv:1911.05371, section 3)."""

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import torch
from annotated_types import Gt
from torch import Tensor

from ssl_platform.distributed import all_reduce_max, all_reduce_sum, world_size
from ssl_platform.ops.finite import refuse_bad_rows

Epsilon = Annotated[float, Gt(0), "e.g. 0.05"]

FAR = 100  # times epsilon; cosines at an epsilon that is used differ by less
BLOCK = 512  # rows whose scores are held at once


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, num_iters: int) -> Tensor:
    """Turn scores into codes: rows sum to 1, prototypes are used about equally often.

    The samples are the union of the rows of every rank; each rank gets its own rows back, equal to
    those of one process that holds them all. Half-precision scores are computed in float32.

    The result is finite for any finite scores, any ``epsilon`` and any number of iterations. With
    more iterations, the sum of each prototype's codes goes to the mean over prototypes.

    On a CPU, exp(scores / epsilon) is computed once and only two vectors of factors are iterated.
    This works while the range fits the number type: differences of scores up to 2.9 at epsilon 0.05
    in float32. For larger ranges, logarithms are iterated: as exact, and five times slower. Other
    devices always iterate logarithms: to know the range, the host would wait in every step.

    Args:
        scores: (N, K), similarity of this rank's samples to the prototypes. All ranks have equal N.
        epsilon: entropy weight; smaller is sharper. Must be positive.
        num_iters: alternating normalisations (prototypes first, then samples), at least 1.

    Returns:
        (N, K) codes, float32 or, for float64 scores, float64.

    Raises:
        ValueError: ``epsilon`` or ``num_iters`` is out of range.
    """
    _refuse_out_of_range(epsilon, num_iters=num_iters)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if scores.device.type != "cpu":
        return _by_logarithms(scores, epsilon, num_iters)
    lowest, highest = scores.aminmax()
    highest, minus_lowest = all_reduce_max(torch.stack([highest, -lowest]))
    # factors and sums lie within exp(+-log_range) times N and K; the last third is left for N and K
    log_range = float((highest + minus_lowest) / epsilon)
    if log_range <= 2 / 3 * math.log(torch.finfo(scores.dtype).max):
        return _by_factors(scores, highest, log_range, epsilon, num_iters)
    return _by_logarithms(scores, epsilon, num_iters)


def _by_factors(
    scores: Tensor, highest: Tensor, log_range: float, epsilon: float, num_iters: int
) -> Tensor:
    """Codes as diag(row_factors) kernel diag(column_factors)."""
    num_samples, num_prototypes = len(scores) * world_size(), scores.shape[1]
    # exp2 takes half the time of exp
    rate = min(math.log2(math.e) / epsilon, torch.finfo(scores.dtype).max)
    kernel = (scores - highest).mul_(rate).exp2_()
    # every iteration makes the factors N / K times as large, or as small
    growth = num_iters * abs(math.log(num_samples / num_prototypes))
    furthest = 2 * log_range + growth + math.log(num_samples * num_prototypes)
    may_overflow = furthest > math.log(torch.finfo(kernel.dtype).max)
    row_factors = kernel.new_ones(len(kernel))
    for _ in range(num_iters):
        column_factors = all_reduce_sum(row_factors @ kernel).reciprocal_()
        if may_overflow:
            column_factors *= _power_of_two_over(column_factors.amax())
        row_factors = (kernel @ column_factors).reciprocal_()
    if not may_overflow:
        return kernel.mul_(column_factors).mul_(row_factors[:, None])
    # without it, small entries underflow between the two products
    lift = _power_of_two_over(column_factors.amin())
    return kernel.mul_(column_factors * lift).mul_((row_factors / lift)[:, None])


def _power_of_two_over(value: Tensor) -> float:
    """The power of two that brings a positive scalar into [1/2, 1): to multiply by it is exact."""
    return 2.0 ** -math.frexp(value.item())[1]


def _by_logarithms(scores: Tensor, epsilon: float, num_iters: int) -> Tensor:
    highest = all_reduce_max(scores.amax(dim=0, keepdim=True))  # (1, K)
    top = highest.amax()
    # A constant per prototype does not change the codes. Where all scores of a prototype are far
    # below the top, its own highest score is subtracted: the distance would cost them digits.
    top = torch.where(top - highest > FAR * epsilon, highest, top)
    log_codes = _over_epsilon(scores, top, epsilon)
    log_codes -= _log_sum_over_samples(log_codes, _over_epsilon(highest, top, epsilon))
    for _ in range(num_iters - 1):
        log_codes -= log_codes.logsumexp(dim=1, keepdim=True)
        log_codes -= _log_sum_over_samples(log_codes)
    return log_codes.softmax(dim=1)


def _over_epsilon(scores: Tensor, highest: Tensor, epsilon: float) -> Tensor:
    """(scores - highest) / epsilon, at least an eighth of the lowest number there is."""
    limits = torch.finfo(scores.dtype)
    # both are divided by a power of two first, which is exact: a difference of scores that epsilon
    # brings back into range does not overflow before
    scale = 2.0 ** -max(0, math.frexp(epsilon)[1])
    differences = torch.add(highest * -scale, scores, alpha=scale)
    return differences.div_(max(epsilon * scale, limits.tiny)).clamp_min_(limits.min / 8)


class BalancedLabels(NamedTuple):
    """What `balanced_labels` found; it has converged if ``error`` is within the tolerance."""

    labels: Tensor  # (N,) int64 in [0, K), of this rank's samples
    num_iters: int  # the same on all ranks
    error: float  # the stopping sum of the last iteration, the same on all ranks


@torch.no_grad()
def balanced_labels(
    embeddings: Tensor,
    prototypes: Tensor,
    *,
    epsilon: float,
    tolerance: float,
    check_every: int,
    max_iters: int,
) -> BalancedLabels:
    """Label each sample with one prototype; all prototypes are used about equally often.

    With P = exp(embeddings prototypes^T / epsilon), Sinkhorn-Knopp looks for c (N) and r (K) such
    that the rows of the plan diag(c) P diag(r) sum to 1/N and its columns to 1/K. From c = 1/N, an
    iteration is r = 1/K / (P^T c), then c = 1/N / (P r). It ends when sum(abs(c_before / c - 1)) is
    within the tolerance; the columns then differ from 1/K by at most that sum / N, all together. A
    label is the largest entry of a row of the plan, the first of equal ones.

    The samples are the union of the rows of every rank, N of them in all. Works on logarithms, so
    it is finite for any positive epsilon, and on blocks of rows whose scores are computed anew
    in every iteration: beside its arguments a rank holds about 20 bytes per entry of a block and 16
    per sample. Scores have the dtype of the embeddings, at least float32. What follows is float64:
    the rounding of float32 alone keeps the stopping sum above 1.7e-7 N, 0.2 for ImageNet.

    Args:
        embeddings: (N, D) of this rank, unit vectors; N may differ between ranks and be 0.
        prototypes: (K, D), unit vectors, equal on all ranks.
        epsilon: entropy weight; smaller is sharper. Must be positive.
        tolerance: largest sum to stop at, over the samples of all ranks; 0.1 in SeLa.
        check_every: the sum is compared with the tolerance every so many iterations.
        max_iters: iterations at most.

    Raises:
        ValueError: a number is out of range, or rows are not finite (on the rank that has them).
    """
    _refuse_out_of_range(epsilon, check_every=check_every, max_iters=max_iters)
    refuse_bad_rows(embeddings=embeddings, prototypes=prototypes)
    num_samples = int(all_reduce_sum(torch.tensor(len(embeddings), device=embeddings.device)))
    num_prototypes = len(prototypes)
    prototypes = prototypes.to(torch.promote_types(embeddings.dtype, torch.float32))
    # at a smaller epsilon, scores of different prototypes are as good as infinitely far apart
    prototypes = prototypes / max(epsilon, torch.finfo(prototypes.dtype).tiny ** 0.5)
    log_r = torch.zeros(num_prototypes, dtype=torch.float64, device=embeddings.device)
    log_c = log_r.new_full((len(embeddings),), -math.log(num_samples))
    labels = torch.empty_like(log_c, dtype=torch.int64)

    log_sums = torch.full_like(log_r, -torch.inf)
    for _, log_values in _log_kernel(embeddings, prototypes, log_r):
        log_sums = torch.logaddexp(log_sums, log_values.logsumexp(dim=0))
    log_r -= _log_sum_over_samples(log_sums[None])[0] - math.log(num_samples / num_prototypes)

    for num_iters in range(1, max_iters + 1):
        column_sums, error = torch.zeros_like(log_r), log_r.new_zeros(())
        for rows, log_values in _log_kernel(embeddings, prototypes, log_r):
            labels[rows], log_row_sums, block_column_sums = _softmax_sums(log_values)
            log_ratio = log_c[rows] + log_row_sums + math.log(num_samples)  # of c_before to c
            log_c[rows] -= log_ratio
            error += torch.expm1(log_ratio).abs().sum()
            column_sums += block_column_sums
        all_reduce_sum(error)
        if num_iters % check_every == 0 and error <= tolerance:
            break
        # In exact numbers the sums are at least 1/K: r made the columns 1/K, and c divides rows by
        # their sums, at most 1. Where scores / epsilon are huge, rounding may make them 0.
        column_sums = all_reduce_sum(column_sums).clamp_min_(torch.finfo(log_r.dtype).tiny)
        log_r -= (column_sums * (num_prototypes / num_samples)).log()
    return BalancedLabels(labels, num_iters, error.item())


def _refuse_out_of_range(epsilon: float, **counts: int) -> None:
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon}: must be above 0")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: at least 1")


def _log_kernel(
    embeddings: Tensor, prototypes: Tensor, log_r: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """log(P diag(r)), a block of rows (B, K) at a time, which the next one overwrites."""
    shape = min(BLOCK, len(embeddings)), len(prototypes)
    # made once for all blocks: the pages of fresh memory take longer than the arithmetic
    scores, log_values = prototypes.new_empty(shape), log_r.new_empty(shape)
    for start in range(0, len(embeddings), BLOCK):
        block = embeddings[start : start + BLOCK].to(prototypes.dtype)
        torch.mm(block, prototypes.T, out=scores[: len(block)])
        torch.add(scores[: len(block)], log_r, out=log_values[: len(block)])
        yield slice(start, start + BLOCK), log_values[: len(block)]


def _softmax_sums(log_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of (B, K), which it overwrites: the argmax and the logsumexp of each row, and the sum of each
    column of the softmax over rows."""
    highest, indices = log_values.max(dim=1)
    values = log_values.sub_(highest[:, None]).exp_()
    sums = values.sum(dim=1)
    return indices, highest + sums.log(), sums.reciprocal() @ values


def _log_sum_over_samples(log_values: Tensor, highest: Tensor | None = None) -> Tensor:
    """logsumexp over the rows of all ranks: (N, K) -> (1, K); their maxima may be known."""
    if highest is None:
        highest = all_reduce_max(log_values.amax(dim=0, keepdim=True))
    total = all_reduce_sum((log_values - highest).exp_().sum(dim=0, keepdim=True))
    return highest + total.log()
