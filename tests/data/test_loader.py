"""Batches: their values, and that they are the same whatever reads them."""

import numpy as np
import pytest
import torch
from loaders import NORMALIZE, Numbered, loader, multicrop, shuffled

from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.schema import dataclass_schema


def equal(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip([*first.crops, *first[1:]], [*second.crops, *second[1:]], strict=True)
    )


def test_values_are_normalised_and_channels_last():
    dataset = Numbered(6)
    data = loader(dataset)
    batches = list(data)
    assert len(data) == len(batches) == 2
    for batch, rows in zip(batches, ([0, 1, 2, 3], [4, 5]), strict=True):
        (crop,) = batch.crops
        pixels = np.stack([dataset.read(row) for row in rows]).transpose(0, 3, 1, 2) / 255
        mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (NORMALIZE.mean, NORMALIZE.std))
        np.testing.assert_allclose(crop.numpy(), (pixels - mean) / std, atol=1e-5)
        assert crop.dtype == torch.float32
        assert crop.is_contiguous(memory_format=torch.channels_last)
        assert batch.index.tolist() == rows
        assert batch.label.tolist() == [row % 3 for row in rows]
        assert batch.label.dtype == batch.index.dtype == torch.int64
    assert data.wait_seconds > 0


def test_without_labels_they_are_minus_one():
    batch = next(iter(loader(Numbered(4, labelled=False))))
    assert batch.label.tolist() == [-1] * 4


def test_batches_do_not_depend_on_the_workers():
    def epochs(**workers) -> list[Batch]:
        sampler = shuffled(22)
        data = loader(Numbered(22), sampler, multicrop(), **workers, drop_last=True)
        batches = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            batches += data
        return batches

    here = epochs(num_workers=0)
    assert len(here) == 10
    for num_workers, start_method in ((1, None), (2, "fork"), (2, "spawn")):
        there = epochs(num_workers=num_workers, start_method=start_method)
        assert all(equal(a, b) for a, b in zip(here, there, strict=True))
    assert not torch.equal(here[0].crops[0], here[5].crops[0])


def test_two_ranks_see_what_one_does():
    def batches(rank: int, world_size: int) -> list[Batch]:
        sampler = shuffled(22, rank, world_size)
        batch_size = 4 // world_size
        return list(loader(Numbered(22), sampler, multicrop(), batch_size=batch_size))

    for whole, first, second in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=True):
        crops = [torch.cat(pair) for pair in zip(first.crops, second.crops, strict=True)]
        rest = [torch.cat(pair) for pair in zip(first[1:], second[1:], strict=True)]
        assert equal(whole, Batch(crops, *rest))


def test_the_device_at_work_is_no_waiting_for_data(monkeypatch):
    now = 0.0

    class Copied:
        def record(self) -> None: ...

        def synchronize(self) -> None:
            nonlocal now
            now += 1.0

    data = loader(Numbered(8))
    monkeypatch.setattr("ssl_platform.data.loading.loader.perf_counter", lambda: now)
    data._copied = Copied()
    assert len(list(data)) == now == 2
    assert data.wait_seconds == 0


def test_normalize_that_cannot_work_is_named():
    schema = dataclass_schema(Normalize)
    with pytest.raises(ValueError, match="1 means and 3 standard deviations; one of each for"):
        Normalize([0.5], [0.2, 0.2, 0.2])
    with pytest.raises(ValueError, match=r"^std\.2=0: above 0$"):
        schema.convert({"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0]})


def test_data_info_counts_the_samples_of_a_rank():
    info = DataInfo(
        num_samples=1000, num_crops=8, batch_size=32, world_size=2, steps_per_epoch=15, seed=0
    )
    assert info.num_local_samples == 480


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_reading_costs_is_counted_for_every_image(num_workers):
    read = loader(Numbered(10), num_workers=num_workers)
    assert read.reading_cost == (0, 0, 0)
    for passes in (1, 2):
        assert len(list(read)) == 3
        assert read.reading_cost.images == 10 * passes
