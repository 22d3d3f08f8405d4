import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_platform.data.loading.sampler import BEFORE_TRAINING, SequentialSampler, ShuffledSampler

VECTORS = Path(__file__).parent.parent / "vectors"


@pytest.mark.parametrize(
    "case",
    json.loads((VECTORS / "counts_and_eval_schedules.json").read_text())["iterations"],
    ids=lambda case: case["name"],
)
def test_counts_are_those_of_the_published_runs(case):
    world_size, batch_size = case["world"], case["per_gpu"] * case["world"]
    sampler = ShuffledSampler(
        case["dataset"], batch_size=batch_size, rank=0, world_size=world_size, seed=0
    )
    assert sampler.steps_per_epoch == case["iters_drop_last"]
    assert len(sampler) == case["memory_rows_per_rank"]


@settings(max_examples=50, deadline=None)
@given(num_samples=st.integers(8, 200), steps_of=st.sampled_from([4, 8]), epoch=st.integers(0, 9))
def test_global_batches_do_not_depend_on_the_number_of_ranks(num_samples, steps_of, epoch):
    def global_batches(world_size: int) -> list[list[int]]:
        ranks = []
        for rank in range(world_size):
            sampler = ShuffledSampler(
                num_samples, batch_size=steps_of, rank=rank, world_size=world_size, seed=3
            )
            sampler.set_epoch(epoch)
            pairs = list(sampler)
            assert len(pairs) == len(sampler)
            assert {e for e, _ in pairs} == {epoch}
            ranks.append(
                np.array([index for _, index in pairs]).reshape(-1, steps_of // world_size)
            )
        return np.concatenate(ranks, axis=1).tolist()

    one = global_batches(1)
    assert one == global_batches(2) == global_batches(4)
    seen = [index for batch in one for index in batch]
    assert len(set(seen)) == len(seen) == num_samples // steps_of * steps_of
    assert set(seen) <= set(range(num_samples))


def test_crops_may_be_those_of_another_epoch_than_the_order():
    sampler = ShuffledSampler(10, batch_size=4, rank=0, world_size=2, seed=0)
    sampler.set_epoch(3)
    plain = list(sampler)
    sampler.set_epoch(3, 4, crops_of=BEFORE_TRAINING)
    assert list(sampler) == [(BEFORE_TRAINING, index) for _, index in plain[2:]]
    sampler.set_epoch(3)
    assert list(sampler) == plain


SIZES = {
    "num_samples": st.integers(8, 100),
    "per_rank": st.integers(1, 4),
    "world_size": st.integers(1, 2),
    "drop_last": st.booleans(),
    "part": st.floats(0, 1),
}


def orders_of_ranks(
    num_samples: int, per_rank: int, world_size: int, drop_last: bool, num_done: int
) -> list[list[int]]:
    orders = []
    for rank in range(world_size):
        sampler = ShuffledSampler(
            num_samples,
            batch_size=per_rank * world_size,
            rank=rank,
            world_size=world_size,
            seed=3,
            drop_last=drop_last,
        )
        sampler.set_epoch(1, num_done)
        mine = [index for _, index in sampler]
        assert num_done or len(mine) == len(sampler)
        assert -(-len(mine) // per_rank) == sampler.steps_after(num_done)
        orders.append(mine)
    return orders


@settings(max_examples=50, deadline=None)
@given(**SIZES)
def test_an_epoch_goes_on_after_its_finished_steps_as_if_it_had_not_stopped(
    num_samples, per_rank, world_size, drop_last, part
):
    sizes = num_samples, per_rank, world_size, drop_last
    step = int(part * (num_samples // (per_rank * world_size)))
    whole = orders_of_ranks(*sizes, 0)
    rest = orders_of_ranks(*sizes, step * per_rank * world_size)
    assert rest == [order[step * per_rank :] for order in whole]


@settings(max_examples=50, deadline=None)
@given(**SIZES)
def test_an_epoch_that_goes_on_with_another_batch_has_no_image_twice(
    num_samples, per_rank, world_size, drop_last, part
):
    num_done = int(part * num_samples)
    (order,) = orders_of_ranks(num_samples, 1, 1, True, 0)
    ranks = orders_of_ranks(num_samples, per_rank, world_size, drop_last, num_done)
    rest, total = [index for mine in ranks for index in mine], per_rank * world_size
    unseen = set(order[num_done:])
    if drop_last:
        assert len(rest) == len(set(rest)) == len(unseen) // total * total
        assert set(rest) <= unseen
    else:
        assert set(rest) >= unseen and len(rest) < len(unseen) + world_size  # padding only


def test_epochs_and_seeds_give_other_orders():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ShuffledSampler(100, batch_size=10, rank=0, world_size=1, seed=seed)
        sampler.set_epoch(epoch)
        return [index for _, index in sampler]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 0) != order(0, 0)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (7, "batch_size=7: must be a multiple of the number of processes, 2"),
        (200, "batch_size=200: the data set has only 100 images"),
        (0, "batch_size=0: must be a multiple of the number of processes, 2"),
    ],
)
def test_batch_sizes_that_cannot_work_are_named(batch_size, message):
    with pytest.raises(ValueError) as caught:
        ShuffledSampler(100, batch_size=batch_size, rank=0, world_size=2, seed=0)
    assert str(caught.value) == message


def test_sequential_sampler_deals_positions_out_in_turn():
    parts = [SequentialSampler([5, 3, 9, 7, 1], rank, 2) for rank in range(2)]
    assert [list(part) for part in parts] == [[(0, 5), (0, 9), (0, 1)], [(0, 3), (0, 7)]]
    assert [len(part) for part in parts] == [3, 2]


@settings(max_examples=50, deadline=None)
@given(
    num_samples=st.integers(1, 100),
    per_rank=st.integers(1, 8),
    world_size=st.integers(1, 4),
)
def test_without_dropping_every_sample_comes_and_all_ranks_have_equally_many(
    num_samples, per_rank, world_size
):
    ranks = orders_of_ranks(num_samples, per_rank, world_size, False, 0)
    assert len(set(map(len, ranks))) == 1
    seen = [index for mine in ranks for index in mine]
    assert set(seen) == set(range(num_samples))
    assert len(seen) - num_samples < world_size  # padding only
