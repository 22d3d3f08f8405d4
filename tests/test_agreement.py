"""What ranks tell each other beside tensors."""

import torch
from ranks import run_on_ranks

from ssl_platform import distributed

AGREED = {"rank": 0, "falling": 5, "negative": -(2**40), "least": 7}
TEXTS = ["", "größer", "not UTF-8: \udcff"]


def agreed_numbers_and_texts() -> tuple[dict[str, int], list[str]]:
    rank = distributed.rank()
    agree = distributed.Agreement(torch.device("cpu"))
    agreed = agree(
        greatest={"rank": rank, "falling": 5 - rank, "negative": -(2**40) * (rank + 1)},
        least={"least": 7 + rank},
    )
    sent = TEXTS if rank == 0 else ["other"] * len(TEXTS)
    texts = [distributed.broadcast_text(text) for text in sent]
    return agreed, texts + distributed.all_gather_texts("longer " * rank)


def test_all_ranks_have_the_greatest_numbers_the_texts_of_the_first_and_those_of_all():
    first, second = run_on_ranks(agreed_numbers_and_texts, 2)
    assert first == second == (AGREED | {"rank": 1}, [*TEXTS, "", "longer "])
    assert agreed_numbers_and_texts() == (AGREED, [*TEXTS, ""])  # alone, nothing is changed
