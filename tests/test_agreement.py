"""What ranks tell each other beside tensors."""

import torch
from ranks import run_on_ranks

from ssl_platform import distributed

AGREED = {"rank": 0, "falling": 5, "negative": -(2**40), "least": 7}
TEXTS = ["", "größer", "not UTF-8: \udcff"]


def told() -> tuple[dict[str, int], list[str]]:
    rank = distributed.rank()
    agree = distributed.Agreement(torch.device("cpu"))
    agreed = agree(
        greatest={"rank": rank, "falling": 5 - rank, "negative": -(2**40) * (rank + 1)},
        least={"least": 7 + rank},
    )
    sent = TEXTS if rank == 0 else ["other"] * len(TEXTS)
    return agreed, [distributed.broadcast_text(text) for text in sent]


def test_all_ranks_have_the_greatest_numbers_and_the_first_ones_text():
    first, second = run_on_ranks(told, 2)
    assert first == second == (AGREED | {"rank": 1}, TEXTS)
    assert told() == (AGREED, TEXTS)  # alone, nothing is changed
