"""What losses keep beside their labels, and how it goes to other ranks."""

import pytest
import torch
from torch import Tensor

from ssl_platform.data.batch import DataInfo
from ssl_platform.losses.base import Loss
from ssl_platform.losses.memory_bank import MemoryBank


class Remembering(Loss):
    """It has a buffer of rows, and one that it says nothing of."""

    row_dims = {"rows": 0}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(6), persistent=False)
        self.register_buffer("secret", torch.zeros(6), persistent=False)

    def forward(self, model, outputs, batch) -> dict[str, Tensor]:
        return {"loss": self.rows.sum()}


def test_rows_of_two_ranks_become_those_of_one_step_by_step():
    first, second = torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])
    merged = Remembering().deal_out("rows", [first, second], batch_size=4)
    assert merged.tolist() == list(range(8))


def test_a_buffer_of_unknown_layout_is_not_dealt_out():
    with pytest.raises(ValueError, match=r"^Remembering does not say how secret is dealt out"):
        Remembering().deal_out("secret", [torch.zeros(6)], batch_size=2)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_bank_goes_on_where_it_was_for_any_number_of_ranks(batch_size):
    def bank(batch_size: int) -> MemoryBank:
        data = DataInfo(
            num_samples=24, num_crops=1, batch_size=batch_size, world_size=24 // 6 // batch_size,
            steps_per_epoch=6, seed=0,
        )  # fmt: skip
        return MemoryBank(data, crops=[0], dim=3)

    source, target = bank(4), bank(batch_size)
    for step in range(2):
        source.write(torch.full((4,), step), [torch.zeros(4, 3)])
    target.load_state_dict(source.state_dict())
    target.write(torch.full((batch_size,), 9), [torch.zeros(batch_size, 3)])
    assert (target.index == 9).nonzero().flatten().tolist() == list(
        range(2 * batch_size, 3 * batch_size)
    )
