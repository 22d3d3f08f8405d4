"""Balanced assignment of samples to prototypes: soft codes of a batch (SwAV, arXiv:2006.09882,
section 3.1) and hard labels of a whole data set (SeLa, arXiv:1911.05371, section 3)."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_platform.distributed import all_reduce_max, all_reduce_sum, world_size
from ssl_platform.ops.finite import num_bad_rows

FAR = 100  # times epsilon; cosines at an epsilon that is used differ by less


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, num_iters: int) -> Tensor:
    """Turn scores into codes: rows sum to 1, prototypes are used about equally often.

    The samples are the union of the rows of every rank; each rank gets its own rows back, equal to
    those of one process that holds them all. Half-precision scores are computed in float32.

    The result is finite for any finite scores, any ``epsilon`` and any number of iterations, with
    which the sum of each prototype's codes goes to the mean over prototypes. On a CPU,
    exp(scores / epsilon) is computed once and only two vectors of factors are iterated, as long as
    its range fits the number type: differences of scores up to 2.9 at epsilon 0.05 in float32.
    Beyond, logarithms are iterated: as exact and five times slower. On any other device they always
    are, because to look at the range would make the host wait for the device in every step.

    Args:
        scores: (N, K), similarity of this rank's samples to the prototypes. All ranks have equal N.
        epsilon: entropy weight; smaller is sharper. Must be positive.
        num_iters: number of alternating normalisations (prototypes first, then samples). 0 returns
            the exponentials scaled to mean row sum 1.

    Returns:
        (N, K) codes, float32 or, for float64 scores, float64.

    Raises:
        ValueError: ``epsilon`` or ``num_iters`` is out of range.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon}: must be positive, e.g. 0.05")
    if num_iters < 0:
        raise ValueError(f"num_iters={num_iters}: 0 or more, e.g. 3")
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if not len(scores):
        return scores.clone()
    if scores.device.type != "cpu":
        return _by_logarithms(scores, epsilon, num_iters)
    lowest, highest = scores.aminmax()
    highest, minus_lowest = all_reduce_max(torch.stack([highest, -lowest]))
    # Factors and sums lie within exp(+-range) times N and K, for which the rest is left.
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
    if num_iters == 0:
        return kernel.mul_(num_samples / all_reduce_sum(kernel.sum()))
    # with every iteration they are N / K times as large, or as small
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
    lift = _power_of_two_over(column_factors.amin())  # else small entries underflow half way
    return kernel.mul_(column_factors * lift).mul_((row_factors / lift)[:, None])


def _power_of_two_over(value: Tensor) -> float:
    """What brings a positive scalar into [1/2, 1), and loses no bit of what it is multiplied by."""
    return 2.0 ** -math.frexp(value.item())[1]


def _by_logarithms(scores: Tensor, epsilon: float, num_iters: int) -> Tensor:
    highest = all_reduce_max(scores.amax(dim=0, keepdim=True))  # (1, K)
    top = highest.amax()
    if num_iters > 0:
        # A constant per prototype does not change the codes. Far below the top, its own highest
        # score keeps the digits that the distance would take.
        top = torch.where(top - highest > FAR * epsilon, highest, top)
    log_codes = _over_epsilon(scores, top, epsilon)
    if num_iters == 0:
        num_samples = len(scores) * world_size()
        log_total = _log_sum_over_samples(log_codes.logsumexp(dim=1, keepdim=True))
        return torch.exp(log_codes - log_total) * num_samples
    log_codes -= _log_sum_over_samples(log_codes, _over_epsilon(highest, top, epsilon))
    for _ in range(num_iters - 1):
        log_codes -= log_codes.logsumexp(dim=1, keepdim=True)
        log_codes -= _log_sum_over_samples(log_codes)
    return log_codes.softmax(dim=1)


def _over_epsilon(scores: Tensor, highest: Tensor, epsilon: float) -> Tensor:
    """(scores - highest) / epsilon, at least an eighth of the lowest number there is."""
    limits = torch.finfo(scores.dtype)
    # dividing both by a power of two loses nothing, and no difference of scores overflows that
    # epsilon would have brought back
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
    block_size: int = 512,
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
        block_size: rows of a block; it bounds the memory and changes nothing else.

    Raises:
        ValueError: an argument is out of range, the widths differ, no rank has a sample, or some
            are not finite (on the rank that has them).
    """
    num_samples = int(all_reduce_sum(torch.tensor(len(embeddings), device=embeddings.device)))
    problems = _problems(
        embeddings, prototypes, num_samples, epsilon, tolerance, check_every, max_iters
    )
    if problems:
        raise ValueError("\n".join(problems))

    num_prototypes = len(prototypes)
    prototypes = prototypes.to(torch.promote_types(embeddings.dtype, torch.float32))
    # below it, scores of different rows and prototypes are as good as infinitely far apart
    prototypes = prototypes / max(epsilon, torch.finfo(prototypes.dtype).tiny ** 0.5)
    log_r = torch.zeros(num_prototypes, dtype=torch.float64, device=embeddings.device)
    log_c = log_r.new_full((len(embeddings),), -math.log(num_samples))
    labels = torch.empty_like(log_c, dtype=torch.int64)

    log_sums = torch.full_like(log_r, -torch.inf)
    for _, log_values in _log_kernel(embeddings, prototypes, log_r, block_size):
        log_sums = torch.logaddexp(log_sums, log_values.logsumexp(dim=0))
    log_r -= _log_sum_over_samples(log_sums[None])[0] - math.log(num_samples / num_prototypes)

    for num_iters in range(1, max_iters + 1):
        column_sums, error = torch.zeros_like(log_r), log_r.new_zeros(())
        for rows, log_values in _log_kernel(embeddings, prototypes, log_r, block_size):
            labels[rows], log_row_sums, block_column_sums = _softmax_sums(log_values)
            log_ratio = log_c[rows] + log_row_sums + math.log(num_samples)  # of c_before to c
            log_c[rows] -= log_ratio
            error += torch.expm1(log_ratio).abs().sum()
            column_sums += block_column_sums
        all_reduce_sum(error)
        if num_iters % check_every == 0 and error <= tolerance:
            break
        # Sums of at least 1/K: r made the columns 1/K, and c divides rows by their sums, at most 1;
        # but for rounding, which can leave nothing of them where scores / epsilon are huge.
        column_sums = all_reduce_sum(column_sums).clamp_min_(torch.finfo(log_r.dtype).tiny)
        log_r -= (column_sums * (num_prototypes / num_samples)).log()
    return BalancedLabels(labels, num_iters, error.item())


def _problems(
    embeddings: Tensor,
    prototypes: Tensor,
    num_samples: int,
    epsilon: float,
    tolerance: float,
    check_every: int,
    max_iters: int,
) -> list[str]:
    problems = []
    if not epsilon > 0:
        problems.append(f"epsilon={epsilon}: must be positive, e.g. 0.05")
    if tolerance < 0:
        problems.append(f"tolerance={tolerance}: must not be negative, e.g. 0.1")
    if check_every < 1:
        problems.append(f"check_every={check_every}: at least 1, e.g. 10")
    if max_iters < 1:
        problems.append(f"max_iters={max_iters}: at least 1, e.g. 200")
    width, embedding_width = prototypes.shape[1], embeddings.shape[1]
    if width != embedding_width:
        problems.append(f"prototypes: {width} wide, must be {embedding_width} as the embeddings")
    if num_samples == 0:
        problems.append("embeddings: 0 samples over all ranks, at least 1")
    for name, rows in {"embeddings": embeddings, "prototypes": prototypes}.items():
        if bad := num_bad_rows(rows):
            problems.append(f"{name}: {bad} of {len(rows)} rows are NaN or infinite")
    return problems


def _log_kernel(
    embeddings: Tensor, prototypes: Tensor, log_r: Tensor, block_size: int
) -> Iterator[tuple[slice, Tensor]]:
    """log(P diag(r)), a block of rows (B, K) at a time, which the next one overwrites."""
    shape = min(block_size, len(embeddings)), len(prototypes)
    # not anew for each block: the pages of fresh memory take longer than the arithmetic
    scores, log_values = prototypes.new_empty(shape), log_r.new_empty(shape)
    for start in range(0, len(embeddings), block_size):
        block = embeddings[start : start + block_size].to(prototypes.dtype)
        torch.mm(block, prototypes.T, out=scores[: len(block)])
        torch.add(scores[: len(block)], log_r, out=log_values[: len(block)])
        yield slice(start, start + block_size), log_values[: len(block)]


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
