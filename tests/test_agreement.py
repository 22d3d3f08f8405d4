"""What ranks tell each other beside tensors."""

import torch
from ranks import run_on_ranks

from ssl_platform import distributed

TEXTS = ["", "größer", "not UTF-8: \udcff"]


def told() -> tuple[list[int], list[str]]:
    rank = distributed.rank()
    agreed = distributed.Agreement(torch.device("cpu"))(rank, 5 - rank, -(2**40) * (rank + 1))
    sent = TEXTS if rank == 0 else ["other"] * len(TEXTS)
    return agreed, [distributed.broadcast_text(text) for text in sent]


def test_all_ranks_have_the_greatest_numbers_and_the_first_ones_text():
    first, second = run_on_ranks(told, 2)
    assert first == second == ([1, 5, -(2**40)], TEXTS)
    assert told() == ([0, 5, -(2**40)], TEXTS)  # alone, nothing is changed
