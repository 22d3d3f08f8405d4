"""Balanced soft assignment of samples to prototypes (SwAV, arXiv:2006.09882, section 3.1)."""

import torch
from torch import Tensor

from ssl_platform.distributed import all_reduce_max, all_reduce_sum, world_size


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, num_iters: int) -> Tensor:
    """Turn scores into codes: rows sum to 1, prototypes are used about equally often.

    The samples are the union of the rows of every rank; each rank gets its own rows back, equal to
    those of one process that holds them all. Works on logarithms, so the result is finite for any
    finite scores; half-precision scores are computed in float32.

    Args:
        scores: (N, K), similarity of this rank's samples to the prototypes. All ranks have equal N.
        epsilon: entropy weight; smaller is sharper. Must be positive.
        num_iters: number of alternating normalisations (prototypes first, then samples). 0 returns
            the exponentials scaled to mean row sum 1.

    Returns:
        (N, K) codes, float32 or, for float64 scores, float64.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # a constant does not change the codes, and without the largest one nothing overflows upwards
    highest = all_reduce_max(scores.amax())
    lowest = torch.finfo(scores.dtype).min / 8
    log_codes = ((scores - highest) / epsilon).clamp_min_(lowest)
    if num_iters == 0:
        num_samples = len(scores) * world_size()
        log_total = _log_sum_over_samples(log_codes.logsumexp(dim=1, keepdim=True))
        return torch.exp(log_codes - log_total) * num_samples
    for iteration in range(num_iters):
        if iteration > 0:
            log_codes -= log_codes.logsumexp(dim=1, keepdim=True)
        log_codes -= _log_sum_over_samples(log_codes)
    return log_codes.softmax(dim=1)


def _log_sum_over_samples(log_values: Tensor) -> Tensor:
    """logsumexp over the rows of all ranks: (N, K) -> (1, K)."""
    highest = all_reduce_max(log_values.amax(dim=0, keepdim=True))
    total = all_reduce_sum((log_values - highest).exp_().sum(dim=0, keepdim=True))
    return highest + total.log()
