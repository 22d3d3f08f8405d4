"""Batches of crops on the device: read and augmented by data workers, finished here."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler

from ssl_platform.data.batch import Batch
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.loading.batch_reader import (
    BadImageLimit,
    BatchReader,
    ReadingCost,
    Transform,
)
from ssl_platform.data.loading.transport import HostBatch, StartMethod, Transport

logger = logging.getLogger(__name__)


class Sampler(Protocol):
    """``(epoch, index)`` pairs of this rank."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[int, int]]: ...


@dataclass(frozen=True)
class LoaderOptions:
    """How images are read.

    Attributes:
        batch_size: of this rank.
        drop_last: leave out the last batch if it is not full.
        num_workers: data processes of this rank; 0 reads in this process. They live as long as the
            loader does.
        start_method: of the data workers, see ``Transport``.
        timeout_seconds: that a data worker may be silent.
        seed: of the augmentation.
        normalize: applied to all crops.
        max_bad_fraction: part of the set's images that may be unreadable; one always may.
        replace_bad: whether another image stands in for an unreadable one. If not, its crops are of
            one colour, for those who leave out its row (see ``Loader.readable``).
    """

    batch_size: int
    drop_last: bool
    num_workers: int
    start_method: StartMethod | None
    timeout_seconds: float
    seed: int
    normalize: Normalize
    max_bad_fraction: float
    replace_bad: bool


class Loader:
    """Iterate over ``Batch``es on ``device``.

    Crops are float32, (B, C, H, W) in channels_last order, normalised. Each image is decoded
    once. The random numbers of a sample depend on ``(seed, epoch, index)`` alone: batches are the
    same for any number of workers. An image that cannot be read is logged once; another that
    (seed, index) decides stands in for it, whose label and index the batch then holds.

    Args:
        dataset: images; ``prepare`` has been called.
        transform: gives an image's crops.
        sampler: which images, in which order.
        options: how they are read.
        device: where batches are.

    Raises while iterating:
        DataError: too many unreadable images.
        DataWorkerError: a data worker has died or hangs.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        sampler: Sampler,
        options: LoaderOptions,
        device: torch.device,
    ):
        # Workers are processes: threads of OpenCV would fight over their cores, and do not survive
        # a fork.
        cv2.setNumThreads(0)
        self.dataset, self.transform, self.sampler = dataset, transform, sampler
        self.batch_size, self.num_workers = options.batch_size, options.num_workers
        self.device = device
        self.wait_seconds = 0.0  # spent waiting for data, over all iterations
        self.reading_cost = ReadingCost(0, 0.0, 0.0)  # of all batches so far
        # torch types the items of a sampler as int; it hands on whatever they are
        pairs: Any = sampler
        self._batches = cast(Any, BatchSampler(pairs, options.batch_size, options.drop_last))
        self._limit = BadImageLimit(options.max_bad_fraction, len(dataset), options.replace_bad)
        self._transport = Transport(
            BatchReader(dataset, transform, options.seed, options.num_workers, limit=self._limit),
            self._batches,
            batch_size=min(options.batch_size, len(sampler)),
            num_workers=options.num_workers,
            start_method=options.start_method,
            timeout_seconds=options.timeout_seconds,
            pin_memory=device.type == "cuda",
        )
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._scale, self._shift = map(self._sent, options.normalize.scale_and_shift)  # (C,)
        self._bad: dict[int, UnreadableImage] = {}  # by position in the data set
        self._damaged: set[int] = set()  # used all the same

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    @property
    def unreadable(self) -> list[int]:
        """Positions in the data set that this rank has found unreadable so far."""
        return list(self._bad)

    def readable(self, index: Tensor) -> Tensor:
        """(B,) bool, whether each image of a batch, by its ``index``, could be read."""
        return torch.tensor([position not in self._bad for position in index.tolist()])

    def __iter__(self) -> Iterator[Batch]:
        start = perf_counter()
        for host_batch in self._transport:
            for report in host_batch.reports:
                self.reading_cost += report.cost
                self._account(report.bad)
                self._note_damaged(report.damaged)
            batch = self._to_device(host_batch)
            self.wait_seconds += perf_counter() - start
            try:
                yield batch
            finally:
                if self._copied is not None:  # the next batch overwrites what was copied from
                    self._copied.synchronize()
                start = perf_counter()  # that is no waiting for data: the device is at work

    def _account(self, bad: list[tuple[int, UnreadableImage]]) -> None:
        """Log what is newly unreadable and stop when it is too much."""
        for index, error in bad:
            if index not in self._bad:
                self._bad[index] = error
                # not a warning: of those only rank 0's are shown
                logger.error("unreadable image %s: %s", error.name, error.reason)
        if len(self._bad) > self._limit.allowed or len(self._bad) == len(self.dataset):
            raise self._limit.error(self._bad.values())

    def _note_damaged(self, damaged: Sequence[tuple[int, UnreadableImage]]) -> None:
        """Log what is newly found to be damaged and used, as ``data.corrupt=use`` allows."""
        for index, error in damaged:
            if index not in self._damaged:
                self._damaged.add(index)
                number = f"no. {len(self._damaged)} that is used all the same"
                logger.error("damaged image %s: %s (%s)", error.name, error.reason, number)

    def _to_device(self, host_batch: HostBatch) -> Batch:
        crops = [self._sent(crop) for crop in host_batch.crops]
        label, index = self._sent(host_batch.label), self._sent(host_batch.index)
        if self._copied is not None:
            self._copied.record()
        # on a CPU it is this that copies crops out of the memory that the next batch overwrites
        return Batch([self._normalized(crop) for crop in crops], label, index)

    def _sent(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def to_pixels(self, crops: Tensor) -> np.ndarray:
        """Undo the normalisation: (B, C, H, W) float32 to (B, H, W, C) uint8, to be looked at."""
        pixels = (crops.permute(0, 2, 3, 1) - self._shift) / self._scale
        return pixels.round().clamp(0, 255).byte().cpu().numpy()

    def _normalized(self, crop: Tensor) -> Tensor:
        """(B, H, W, C) to (B, C, H, W) float32 in channels_last order."""
        # A row of pixels at a time: an inner dimension of three channels would be slow on a CPU.
        width = crop.shape[2]
        rows = crop.flatten(2).float()  # (B, H, W * C)
        rows = torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width))
        return rows.view(crop.shape).permute(0, 3, 1, 2)
