"""Batches of crops on the device: read and augmented by data workers, finished here."""

import logging
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, Literal, Protocol, cast

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
    DeviceTransform,
    ReadingCost,
    Transform,
)
from ssl_platform.data.loading.transport import HostBatch, StartMethod, Transport

logger = logging.getLogger(__name__)


class Sampler(Protocol):
    """``(epoch, index)`` pairs of this rank."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[int, int]]: ...


class Loader:
    """Iterate over ``Batch``es on ``device``.

    Crops are float32, (B, 3, H, W) in channels_last order, normalised. Each image is decoded
    once. The random numbers of a sample depend on ``(seed, epoch, index)`` alone: batches are the
    same for any number of workers. An image that cannot be read is logged once; another that
    (seed, index) decides stands in for it, whose label and index the batch then holds.

    Args:
        dataset: images; ``prepare`` has been called.
        transform: gives an image's crops.
        sampler: which images, in which order.
        batch_size: of this rank.
        num_workers: data processes of this rank; 0 reads in this process. They live as long as the
            loader does.
        start_method, timeout_seconds: of the data workers, see ``Transport``.
        seed: of the augmentation.
        normalize: applied to all crops.
        normalize_on: where: on the ``device``, or by the ``workers``, whose crops then take four
            times the memory.
        device: where batches are.
        max_bad_fraction: part of the set's images that may be unreadable; one always may.
        drop_last: leave out the last batch if it is not full.
        replace_bad: as above; else the crops of an unreadable image are one colour, for those who
            leave out its row (see ``readable``).

    Raises while iterating:
        DataError: too many unreadable images.
        DataWorkerError: a data worker has died or hangs.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        sampler: Sampler,
        *,
        batch_size: int,
        num_workers: int,
        start_method: StartMethod | None,
        timeout_seconds: float,
        seed: int,
        normalize: Normalize,
        normalize_on: Literal["device", "workers"] = "device",
        device: torch.device,
        max_bad_fraction: float,
        drop_last: bool,
        replace_bad: bool = True,
    ):
        # Workers are processes: threads of OpenCV would fight over their cores, and do not survive
        # a fork.
        cv2.setNumThreads(0)
        self.dataset, self.transform, self.sampler = dataset, transform, sampler
        self.batch_size, self.num_workers, self.device = batch_size, num_workers, device
        self.wait_seconds = 0.0  # spent waiting for data, over all iterations
        self.reading_cost = ReadingCost(0, 0.0, 0.0)  # of all batches so far
        # torch types the items of a sampler as int; it hands on whatever they are
        self._batches = cast(Any, BatchSampler(cast(Any, sampler), batch_size, drop_last))
        by_workers = normalize if normalize_on == "workers" else None
        self._limit = BadImageLimit(max_bad_fraction, len(dataset), replace_bad)
        read = BatchReader(dataset, transform, seed, num_workers, by_workers, limit=self._limit)
        self._num_parameters = read.num_parameters
        self._transport = Transport(
            read,
            self._batches,
            batch_size=min(batch_size, len(sampler)),
            num_workers=num_workers,
            start_method=start_method,
            timeout_seconds=timeout_seconds,
            pin_memory=device.type == "cuda",
        )
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._scale, self._shift = map(self._sent, normalize.scale_and_shift)  # (3,)
        self._is_normalized = by_workers is not None
        self._bad: dict[int, UnreadableImage] = {}  # by position in the data set
        self._damaged: set[int] = set()  # used all the same

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    @property
    def finishes_crops(self) -> bool:
        """Whether colours and blur are left to the device."""
        return self._num_parameters > 0

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
        crops, label, index = (
            # normalising copies them out of the ring, where it is not already done
            [self._sent(crop, copy=self._is_normalized) for crop in host_batch.crops],
            self._sent(host_batch.label),
            self._sent(host_batch.index),
        )
        if self._copied is not None:
            self._copied.record()
        if self.finishes_crops:
            crops = cast(DeviceTransform, self.transform).finish(crops, host_batch.parameters)
        return Batch([self._normalized(crop) for crop in crops], label, index)

    def _sent(self, array: np.ndarray, copy: bool = False) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True, copy=copy)

    def to_pixels(self, crops: Tensor) -> np.ndarray:
        """Undo the normalisation: (B, 3, H, W) float32 to (B, H, W, 3) uint8, to be looked at."""
        pixels = (crops.permute(0, 2, 3, 1) - self._shift) / self._scale
        return pixels.round().clamp(0, 255).byte().cpu().numpy()

    def _normalized(self, crop: Tensor) -> Tensor:
        """(B, H, W, 3) to (B, 3, H, W) float32 in channels_last order."""
        if self._is_normalized:
            return crop.permute(0, 3, 1, 2)
        # A row of pixels at a time: an inner dimension of three channels would be slow on a CPU.
        width = crop.shape[2]
        rows = crop.flatten(2).float()  # (B, H, W * 3)
        rows = torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width))
        return rows.view(crop.shape).permute(0, 3, 1, 2)
