"""How a buffer that each rank has of its own goes to another number of ranks."""

import pytest
import torch
from torch import Tensor

from ssl_platform.losses.base import Loss


class Remembering(Loss):
    """It has a buffer of rows, and one that it says nothing of."""

    row_dims = {"rows": 0}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(6), persistent=False)
        self.register_buffer("secret", torch.zeros(6), persistent=False)

    def forward(self, model, outputs, batch) -> dict[str, Tensor]:
        return {"loss": self.rows.sum()}


class Older(Remembering):
    """Written when `Loss.reshard` had another name."""

    def deal_out(self, name: str, parts: list[Tensor], *, batch_size: int) -> Tensor:
        return -super().deal_out(name, parts, batch_size=batch_size)


@pytest.mark.parametrize(("kind", "sign"), [(Remembering, 1), (Older, -1)])
def test_rows_of_two_ranks_become_those_of_one_step_by_step(kind, sign):
    first, second = torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])
    merged = kind().reshard("rows", [first, second], batch_size=4)
    assert merged.tolist() == [sign * row for row in range(8)]


def test_a_buffer_of_unknown_layout_is_not_dealt_out():
    with pytest.raises(ValueError, match=r"^Remembering does not say how secret is dealt out"):
        Remembering().reshard("secret", [torch.zeros(6)], batch_size=2)
