"""Crops from data workers to the process that trains: CPU time of all of them per image.

    python benchmarks/transport.py [--rounds 9]

Two crops of 224 and six of 96 pixels, batches of 32, two workers. Making the crops costs nothing
here. The peer is torch's DataLoader with a list of float32 tensors, which its default function
puts together. Starting the workers is not counted.
"""

from ratios import Row, rounds_of, run_alone, speedups  # isort: skip (threads)

import ctypes
import multiprocessing
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.batch_reader import BadImageLimit, BatchReader
from ssl_platform.data.loading.transport import Transport

SIZES = [224] * 2 + [96] * 6
BATCH_SIZE, NUM_WORKERS, NUM_IMAGES = 32, 2, 1024
LIBC = ctypes.CDLL(None)


class OneImage(ImageDataset):
    """The same pixel again and again: reading it costs nothing."""

    labels = None

    def __init__(self):
        self.image = np.zeros((1, 1, 3), np.uint8)

    def __len__(self) -> int:
        return NUM_IMAGES

    def read(self, index: int) -> np.ndarray:
        return self.image

    def describe(self, index: int) -> str:
        return "an image"


class SameCrops:
    """A transform that makes nothing: always the same arrays."""

    num_crops, crop_sizes = len(SIZES), SIZES

    def __init__(self):
        self.crops = [np.full((size, size, 3), 7, np.uint8) for size in SIZES]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        return self.crops


class SameTensors(Dataset):
    """The same crops for torch's DataLoader, as float32 tensors."""

    def __init__(self):
        self.tensors = [torch.full((3, size, size), 7.0) for size in SIZES]

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        return self.tensors, index


def cpu_seconds() -> float:
    """CPU time of this process and of its living children, which ``process_time`` leaves out."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        clock = ctypes.c_int()
        LIBC.clock_getcpuclockid(child.pid, ctypes.byref(clock))
        seconds += time.clock_gettime(clock.value)
    return seconds


def rows(rounds: int) -> Iterator[Row]:
    samples = [(0, index) for index in range(NUM_IMAGES)]
    platform = Transport(
        BatchReader(
            OneImage(),
            SameCrops(),
            seed=0,
            num_workers=NUM_WORKERS,
            limit=BadImageLimit(0.0, 1, replace_bad=True),
        ),
        [samples[start : start + BATCH_SIZE] for start in range(0, NUM_IMAGES, BATCH_SIZE)],
        batch_size=BATCH_SIZE,
        num_workers=NUM_WORKERS,
        start_method=None,
        timeout_seconds=60,
        pin_memory=False,
    )
    peer = DataLoader(SameTensors(), BATCH_SIZE, num_workers=NUM_WORKERS, persistent_workers=True)

    def consume(loader) -> None:
        for _ in loader:
            pass

    contenders = {"platform": partial(consume, platform), "lists": partial(consume, peer)}
    seconds = rounds_of(contenders, rounds, cpu_seconds)
    milliseconds = [1000 * value / NUM_IMAGES for value in seconds["platform"]]
    yield Row("transport, ms of CPU per image", milliseconds, 0.3, "ms")
    yield Row("transport, float32 lists", speedups(seconds["lists"], seconds["platform"]), 8)


if __name__ == "__main__":
    run_alone(__doc__, rows, 9)
