"""Codes of a batch against the textbook's way, which normalises the whole matrix each time.

    python benchmarks/sinkhorn.py [--rounds 9]

4096 samples, 3000 prototypes, epsilon 0.05, 3 iterations: SwAV's numbers for 64 GPUs.
"""

from ratios import Row, extra_mebibytes, rounds_of, run_alone, speedups  # isort: skip (threads)

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.sinkhorn import sinkhorn

EPSILON, NUM_ITERS = 0.05, 3


def textbook(scores: Tensor) -> Tensor:
    codes = torch.exp(scores / EPSILON)
    num_samples, num_prototypes = codes.shape
    codes /= codes.sum()
    for _ in range(NUM_ITERS):
        codes /= codes.sum(dim=0, keepdim=True)
        codes /= num_prototypes
        codes /= codes.sum(dim=1, keepdim=True)
        codes /= num_samples
    return codes.mul_(num_samples)


def platform(scores: Tensor) -> Tensor:
    return sinkhorn(scores, epsilon=EPSILON, num_iters=NUM_ITERS)


def rows(rounds: int) -> Iterator[Row]:
    torch.manual_seed(0)
    samples, prototypes = (F.normalize(torch.randn(n, 128), dim=1) for n in (4096, 3000))
    scores = samples @ prototypes.T
    seconds = rounds_of(
        {"textbook": lambda: textbook(scores), "platform": lambda: platform(scores)}, rounds
    )
    yield Row("Sinkhorn, textbook", speedups(seconds["textbook"], seconds["platform"]), 1.8)
    held, textbook_held = (
        extra_mebibytes(partial(method, scores)) for method in (platform, textbook)
    )
    # two vectors come on top of the half
    yield Row("Sinkhorn, part of the textbook's memory", [held / textbook_held], 0.51, "")
    error = (platform(scores) - textbook(scores.double())).abs().max().item()
    yield Row("Sinkhorn, error against float64, 1e-6", [error * 1e6], 20, "")


if __name__ == "__main__":
    run_alone(__doc__, rows, 9)
