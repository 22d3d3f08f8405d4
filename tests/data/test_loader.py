"""Batches: the same whatever reads them, and what happens when an image cannot be read."""

import logging
import os
import signal
import subprocess
import sys
from multiprocessing import connection

import numpy as np
import pytest
import torch

from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.data.crops import native_crop
from ssl_platform.data.crops.augment import Blur, ColorJitter
from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.crops.multicrop import CropGroup, MultiCrop
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.loading import transport
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import SequentialSampler, ShuffledSampler
from ssl_platform.errors import DataError, DataWorkerError

CPU = torch.device("cpu")
NORMALIZE = Normalize(mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])


class Numbered(ImageDataset):
    """Image i has its number in its first pixel; those in ``bad`` cannot be read."""

    def __init__(self, num_samples: int, bad: tuple[int, ...] = (), labelled: bool = True):
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (num_samples, 24, 24, 3), np.uint8)
        self._images[:, 0, 0, 0] = np.arange(num_samples)
        self.labels = np.arange(num_samples) % 3 if labelled else None
        self._bad = bad

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> np.ndarray:
        if index in self._bad:
            raise UnreadableImage(self.describe(index), "not an image")
        return self._images[index]

    def describe(self, index: int) -> str:
        return f"{index}.jpg"


class Deadly(Numbered):
    """Whoever reads image 5 dies of it."""

    def read(self, index: int) -> np.ndarray:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


class Hanging(Numbered):
    """Whoever reads image 5 waits for ever, as on a network drive that is gone."""

    def read(self, index: int) -> np.ndarray:
        while index == 5:
            signal.pause()
        return super().read(index)


def multicrop(**options) -> MultiCrop:
    return MultiCrop(
        crops={"large": CropGroup(16, 2, (0.2, 1.0)), "small": CropGroup(10, 1, (0.1, 0.2))},
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=ColorJitter(0.8, 0.8, 0.8, 0.8, 0.2),
        grayscale=0.2,
        blur=Blur(0.5, (0.1, 2.0), "gaussian23"),
        **options,
    )


def loader(dataset: ImageDataset, sampler, transform=None, **options) -> Loader:
    defaults = {
        "batch_size": 4,
        "num_workers": 0,
        "start_method": None,
        "timeout_seconds": 60.0,
        "seed": 5,
        "normalize": NORMALIZE,
        "device": CPU,
        "max_bad_fraction": 0.0,
        "drop_last": False,
    }
    transform = transform or CenterCrop(resize=24, size=24)
    return Loader(dataset, transform, sampler, **{**defaults, **options})


def shuffled(num_samples: int, rank: int = 0, world_size: int = 1) -> ShuffledSampler:
    return ShuffledSampler(num_samples, batch_size=4, rank=rank, world_size=world_size, seed=1)


def failure(data: Loader) -> str:
    """The message of the error that iterating ends with, without keeping the loader alive."""
    try:
        list(data)
    except DataError as error:
        return str(error)
    raise AssertionError("no error")


def equal(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip([*first.crops, *first[1:]], [*second.crops, *second[1:]], strict=True)
    )


def test_values_are_normalised_and_channels_last():
    dataset = Numbered(6)
    data = loader(dataset, SequentialSampler(range(6), 0, 1))
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
    batch = next(iter(loader(Numbered(4, labelled=False), SequentialSampler(range(4), 0, 1))))
    assert batch.label.tolist() == [-1] * 4


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_batches_do_not_depend_on_the_workers(augment_on):
    def epochs(**workers) -> list[Batch]:
        sampler = shuffled(22)
        data = loader(
            Numbered(22), sampler, multicrop(augment_on=augment_on), **workers, drop_last=True
        )
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


def test_the_device_finishes_crops_as_workers_do():
    level = 1 / 255 / min(NORMALIZE.std)
    on_workers, on_device = (
        list(loader(Numbered(22), shuffled(22), multicrop(augment_on=place)))
        for place in ("workers", "device")
    )
    crops, theirs = (
        torch.cat([crop.flatten() for batch in batches for crop in batch.crops])
        for batches in (on_device, on_workers)
    )
    difference = (crops - theirs).abs()
    # the OpenCV way rounds otherwise
    bound = 1e-4 if native_crop.AVAILABLE else 1.0
    assert difference.mean() < bound * level
    assert all(
        crop.is_contiguous(memory_format=torch.channels_last) and crop.dtype == torch.float32
        for batch in on_device
        for crop in batch.crops
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_normalise_as_the_device_does(num_workers):
    on_device, by_workers = (
        list(
            loader(
                Numbered(22), shuffled(22), multicrop(), num_workers=num_workers, normalize_on=place
            )
        )
        for place in ("device", "workers")
    )
    for batch, expected in zip(by_workers, on_device, strict=True):
        assert torch.equal(batch.index, expected.index)
        for crop, theirs in zip(batch.crops, expected.crops, strict=True):
            assert torch.allclose(crop, theirs, rtol=0, atol=1e-6)
            assert crop.is_contiguous(memory_format=torch.channels_last)


def test_two_ranks_see_what_one_does():
    def batches(rank: int, world_size: int) -> list[Batch]:
        sampler = shuffled(22, rank, world_size)
        batch_size = 4 // world_size
        return list(loader(Numbered(22), sampler, multicrop(), batch_size=batch_size))

    for whole, first, second in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=True):
        crops = [torch.cat(pair) for pair in zip(first.crops, second.crops, strict=True)]
        rest = [torch.cat(pair) for pair in zip(first[1:], second[1:], strict=True)]
        assert equal(whole, Batch(crops, *rest))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_has_a_stand_in_and_is_logged_once(num_workers, caplog):
    data = loader(
        Numbered(12, bad=(2, 3, 11)),
        SequentialSampler(range(12), 0, 1),
        num_workers=num_workers,
        max_bad_fraction=0.25,
    )
    with caplog.at_level(logging.WARNING):
        passes = [torch.cat([batch.index for batch in data]).tolist() for _ in range(2)]
    assert passes[0] == passes[1]
    for index, read in enumerate(passes[0]):
        assert read not in (2, 3, 11) and (read == index or index in (2, 3, 11))
    messages = sorted(record.message for record in caplog.records)
    assert messages == [f"unreadable image {i}.jpg: not an image" for i in (11, 2, 3)]


def indices(data: Loader) -> list[int]:
    return torch.cat([batch.index for batch in data]).tolist()


def test_stand_ins_are_the_same_for_any_workers_ranks_and_place_to_start_from():
    bad, options = tuple(range(40, 90)), {"max_bad_fraction": 0.5}
    dataset = Numbered(128, bad=bad)
    whole = indices(loader(dataset, SequentialSampler(range(128), 0, 1), **options))
    by_workers = loader(dataset, SequentialSampler(range(128), 0, 1), num_workers=2, **options)
    assert indices(by_workers) == whole
    for rank in range(2):
        sampler = SequentialSampler(range(128), rank, 2)
        assert indices(loader(dataset, sampler, **options)) == whole[rank::2]
    rest = SequentialSampler(range(70, 128), 0, 1)
    assert indices(loader(dataset, rest, **options)) == whole[70:]
    stand_ins = whole[40:90]
    assert not set(stand_ins) & set(bad)
    assert len(set(stand_ins)) > 20  # not the one good image behind a row of bad ones
    other_seed = loader(dataset, SequentialSampler(range(128), 0, 1), seed=6, **options)
    assert indices(other_seed)[40:90] != stand_ins


def test_any_number_of_bad_images_in_a_row_has_stand_ins():
    data = loader(
        Numbered(200, bad=tuple(range(1, 200))),
        SequentialSampler(range(200), 0, 1),
        max_bad_fraction=1.0,
    )
    assert indices(data) == [0] * 200


@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_bad_image_is_always_allowed(num_workers):
    data = loader(Numbered(12, bad=(5,)), SequentialSampler(range(12), 0, 1),
                  num_workers=num_workers, max_bad_fraction=0.0)  # fmt: skip
    assert len(indices(data)) == 12
    assert data.unreadable == [5]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_where_nothing_stands_in_the_row_is_marked(num_workers):
    data = loader(
        Numbered(12, bad=(2, 3, 11)), SequentialSampler(range(12), 0, 1), num_workers=num_workers,
        max_bad_fraction=0.25, replace_bad=False,
    )  # fmt: skip
    readable = []
    for batch in data:
        marks = data.readable(batch.index)
        readable += marks.tolist()
        pixels = data.to_pixels(batch.crops[0])
        assert (pixels[~marks.numpy()] == 0).all()
        assert pixels[marks.numpy()][:, 0, 0, 0].tolist() == batch.index[marks].tolist()
    assert readable == [index not in (2, 3, 11) for index in range(12)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_bad_images_end_the_run(num_workers):
    data = loader(
        Numbered(20, bad=(2, 3, 11)),
        SequentialSampler(range(20), 0, 1),
        num_workers=num_workers,
        max_bad_fraction=0.1,
    )
    assert failure(data) == (
        "3 of 20 images cannot be read, data.max_bad_fraction=0.1 allows 2: "
        "2.jpg (not an image), 11.jpg (not an image), 3.jpg (not an image); "
        "to go on with others in their place set data.max_bad_fraction=0.3"
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_without_a_readable_image_ends_the_run(num_workers):
    data = loader(
        Numbered(30, bad=tuple(range(30))),
        SequentialSampler([6], 0, 1),
        num_workers=num_workers,
        max_bad_fraction=1.0,
    )
    message = failure(data)
    assert message.startswith("none of the 30 images can be read: 6.jpg (not an image), ")
    assert message.endswith(" and 25 more")
    assert "\n" not in message


def test_a_dead_worker_is_one_line_with_the_image_that_it_was_at():
    data = loader(Deadly(12), SequentialSampler(range(12), 0, 1), num_workers=2)
    message = failure(data)
    assert message == (
        "a data worker has died at 5.jpg "
        "(killed; the usual reason is a lack of memory: lower data.num_workers)"
    )


def test_a_dead_worker_disturbs_nothing_but_the_next_batch():
    """Not the forward pass that goes on meanwhile."""
    data = loader(Deadly(12), SequentialSampler(range(12), 0, 1), num_workers=2)
    batches = iter(data)
    next(batches)  # meanwhile image 5 is read
    connection.wait([worker.process.sentinel for worker in data._transport._workers])
    with pytest.raises(DataWorkerError, match=r"has died at 5\.jpg"):
        list(batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pass_that_is_given_up_leaves_the_next_one_whole(num_workers):
    dataset = Numbered(40)
    data = loader(dataset, SequentialSampler(range(40), 0, 1), num_workers=num_workers)
    kept = [next(iter(data)), *data]
    assert [batch.index[0].item() for batch in kept] == [0, *range(0, 40, 4)]
    first_pixels = [data.to_pixels(batch.crops[0])[:, 0, 0, 0].tolist() for batch in kept]
    assert first_pixels == [batch.index.tolist() for batch in kept]


@pytest.mark.parametrize("call", range(1, 6))  # the answers of two workers to three batches
def test_a_pass_that_is_interrupted_leaves_the_next_one_whole(call, monkeypatch):
    data = loader(Numbered(40), SequentialSampler(range(40), 0, 1), num_workers=2)
    calls = iter(range(call))

    def wait(*args):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return connection.wait(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(transport, "wait", wait)
        list(data)
    assert [batch.index.tolist() for batch in data] == np.arange(40).reshape(-1, 4).tolist()


def test_the_device_at_work_is_no_waiting_for_data(monkeypatch):
    now = 0.0

    class Copied:
        def record(self) -> None: ...

        def synchronize(self) -> None:
            nonlocal now
            now += 1.0

    data = loader(Numbered(8), SequentialSampler(range(8), 0, 1))
    monkeypatch.setattr("ssl_platform.data.loading.loader.perf_counter", lambda: now)
    data._copied = Copied()
    assert len(list(data)) == now == 2
    assert data.wait_seconds == 0


def test_a_worker_that_hangs_is_one_line_with_the_image_that_it_is_at():
    data = loader(Hanging(12), SequentialSampler(range(12), 0, 1), num_workers=1)
    batches = iter(data)
    next(batches)
    worker = data._transport._workers[0].process
    while data._transport._read.whereabouts(worker=0) != "5.jpg":
        pass
    data._transport._timeout_seconds = 0.0
    with pytest.raises(DataWorkerError) as caught:
        list(batches)
    assert str(caught.value) == "a data worker has brought nothing for 0 minutes, it hangs at 5.jpg"
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def test_crops_need_no_room_in_dev_shm(monkeypatch):
    statvfs = os.statvfs
    full = os.statvfs_result([4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255])
    monkeypatch.setattr(os, "statvfs", lambda at: full if at == "/dev/shm" else statvfs(at))
    data = loader(Numbered(12), SequentialSampler(range(12), 0, 1), num_workers=1)
    assert torch.cat([batch.index for batch in data]).tolist() == list(range(12))


PROGRAM = """
import os, signal
from tests.data.test_loader import *

def wait_for_signal(number, frame):
    global signalled
    signalled = True

signal.signal(signal.SIGTERM, wait_for_signal)
data = loader(Numbered(40), SequentialSampler(range(40), 0, 1), num_workers=2)
batches = iter(data)
next(batches)
os.killpg(0, signal.SIGTERM)  # as a scheduler does: to every process of the job
assert len(list(batches)) == 9 and signalled
print("end")
"""


def test_workers_outlive_a_signal_but_not_their_process():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=200,
        start_new_session=True,
    )
    assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr


def test_normalize_that_cannot_work_is_named():
    with pytest.raises(ValueError, match=r"^mean=\[0.5\]: must be three numbers, for R, G and B$"):
        Normalize(mean=[0.5], std=[0.2, 0.2, 0.2])
    with pytest.raises(ValueError, match=r"^std=\[0.2, 0.2, 0\]: must be above 0$"):
        Normalize(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0])


def test_data_info_counts_the_samples_of_a_rank():
    info = DataInfo(
        num_samples=1000, num_crops=8, batch_size=32, world_size=2, steps_per_epoch=15, seed=0
    )
    assert info.num_local_samples == 480


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_reading_costs_is_counted_for_every_image(num_workers):
    read = loader(Numbered(10), SequentialSampler(range(10), 0, 1), num_workers=num_workers)
    assert read.reading_cost == (0, 0, 0)
    for passes in (1, 2):
        assert len(list(read)) == 3
        assert read.reading_cost.images == 10 * passes


def test_a_batch_larger_than_a_pipe_does_not_stop_it():
    samples = [0] * 60_000  # some 240 kB of task
    data = loader(
        Numbered(1),
        SequentialSampler(samples, 0, 1),
        CenterCrop(resize=1, size=1),
        batch_size=len(samples) // 4,
        num_workers=1,
    )
    assert [len(batch.index) for batch in data] == [len(samples) // 4] * 4
