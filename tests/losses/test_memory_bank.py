"""The embeddings of the past epoch, and the table of the labels that are made of them."""

import pytest
import torch
from ranks import run_on_ranks
from tiny_losses import some_data

from ssl_platform import distributed
from ssl_platform.losses.memory_bank import MemoryBank

UNSET = -1


def a_bank(batch_size: int, world_size: int, steps: int) -> MemoryBank:
    data = some_data(batch_size=batch_size, world_size=world_size, steps_per_epoch=steps)
    return MemoryBank(data, crops=[0], dim=3)


def table_of_a_rank(index: list[int]) -> list[int]:
    """The table when value i belongs to row i of the batches of four in ``index``."""
    rank, ranks = distributed.rank(), distributed.world_size()
    share = 4 // ranks
    mine = torch.arange(8).view(2, ranks, share)[:, rank].flatten()
    bank = a_bank(share, ranks, steps=2)
    bank.index.copy_(torch.tensor(index)[mine])
    table = torch.full((11,), UNSET)
    bank.spread(mine, table)
    return table.tolist()


def test_of_several_rows_of_an_image_the_latest_counts_whatever_the_number_of_ranks():
    index = [5, 6, 5, 7, 8, 5, 9, 6]
    expected = [UNSET] * 5 + [5, 7, 3, 4, 6, UNSET]
    assert table_of_a_rank(index) == expected
    for ranks in (2, 4):
        assert run_on_ranks(table_of_a_rank, ranks, index) == [expected] * ranks


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_bank_goes_on_where_it_was_for_any_number_of_ranks(batch_size):
    source, target = a_bank(4, 1, steps=6), a_bank(batch_size, 4 // batch_size, steps=6)
    for step in range(2):
        source.write(torch.full((4,), step), [torch.zeros(4, 3)])
    target.load_state_dict(source.state_dict())
    target.write(torch.full((batch_size,), 9), [torch.zeros(batch_size, 3)])
    expected = list(range(2 * batch_size, 3 * batch_size))
    assert (target.index == 9).nonzero().flatten().tolist() == expected
