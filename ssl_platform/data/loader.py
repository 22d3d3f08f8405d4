"""Images in, batches out: reading and augmenting in data workers, normalising on the device."""

import ctypes
import logging
import os
import re
import signal
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawArray, RawValue
from multiprocessing.util import Finalize
from time import perf_counter, thread_time
from typing import Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from ssl_platform.data.batch import Batch
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.errors import DataError, DataWorkerError

logger = logging.getLogger(__name__)

MAX_NEIGHBOURS = 16  # tried in place of one unreadable image
MAX_NAMED = 5  # files in an error message
# sent to every process of a job, and meant for the main one
JOB_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Transform(Protocol):
    """A image in, its crops out; crops of equal size are adjacent."""

    @property
    def num_crops(self) -> int: ...

    @property
    def crop_sizes(self) -> list[int]: ...

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]: ...


class Sampler(Protocol):
    """``(epoch, index)`` pairs of this rank."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[int, int]]: ...


@dataclass(frozen=True)
class Normalize:
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{name}={values}: must be three numbers, for R, G and B")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std={self.std}: must be above 0")


class Loader:
    """Iterate over ``Batch``es on ``device``.

    Crops are float32, (B, 3, H, W) in channels_last order, normalised. Each image is decoded
    once. The random numbers of a sample depend on ``(seed, epoch, index)`` alone: batches are the
    same for any number of workers. A image that cannot be read is replaced by one nearby (whose
    label and index the batch then holds) and logged once.

    Args:
        dataset: images; ``prepare`` has been called.
        transform: gives a image's crops.
        sampler: which images, in which order.
        batch_size: of this rank.
        num_workers: data processes of this rank; 0 reads in this process. They live as long as the
            loader does.
        seed: of the augmentation.
        normalize: applied on the device.
        device: where batches are.
        max_bad_fraction: part of the set's images that may be unreadable.
        drop_last: leave out the last batch if it is not full.

    Raises while iterating:
        DataError: too many unreadable images.
        DataWorkerError: a data worker has died.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        sampler: Sampler,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        normalize: Normalize,
        device: torch.device,
        max_bad_fraction: float,
        drop_last: bool,
    ):
        # Workers are processes: threads of OpenCV would fight over their cores, and do not survive
        # a fork.
        cv2.setNumThreads(0)
        self.dataset, self.transform, self.sampler = dataset, transform, sampler
        self.batch_size, self.num_workers, self.device = batch_size, num_workers, device
        self.wait_seconds = 0.0  # spent waiting for data, over all iterations
        # torch types the items of a sampler as int; it hands on whatever they are
        self._batches = cast(Any, BatchSampler(cast(Any, sampler), batch_size, drop_last))
        self._read = BatchReader(dataset, transform, seed, num_workers)
        self._transport = open_transport(
            self._read,
            self._batches,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
        )
        scale = 1 / (255 * torch.tensor(normalize.std, dtype=torch.float64))
        shift = -torch.tensor(normalize.mean, dtype=torch.float64) * 255 * scale
        self._scale = scale.float().to(device)  # (3,)
        self._shift = shift.float().to(device)
        self._max_bad_fraction = max_bad_fraction
        self._bad: dict[int, UnreadableImage] = {}  # by position in the data set

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    @property
    def unreadable(self) -> list[int]:
        """Positions in the data set that this rank has found unreadable so far."""
        return list(self._bad)

    @property
    def reading_cost(self) -> "ReadingCost":
        """Of what this rank has read so far."""
        return ReadingCost(*self._read.costs.sum(axis=0).tolist())

    def __iter__(self) -> Iterator[Batch]:
        start = perf_counter()
        for host_batch in self._transport:
            self._account(host_batch.bad)
            batch = self._to_device(host_batch)
            self.wait_seconds += perf_counter() - start
            yield batch
            start = perf_counter()

    def _account(self, bad: list[tuple[int, UnreadableImage]]) -> None:
        """Log what is newly unreadable and stop when it is too much."""
        for index, error in bad:
            if index not in self._bad:
                self._bad[index] = error
                # not a warning: of those only rank 0's are shown
                logger.error("unreadable image %s: %s", error.name, error.reason)
        limit = self._max_bad_fraction * len(self.dataset)
        if len(self._bad) > limit:
            raise DataError(
                f"{len(self._bad)} of {len(self.dataset)} images cannot be read, "
                f"data.max_bad_fraction={self._max_bad_fraction} allows {int(limit)}: "
                f"{_name_some(self._bad.values())}"
            )

    def _to_device(self, host_batch: "HostBatch") -> Batch:
        crops, label, index = (
            [crop.to(self.device, non_blocking=True) for crop in host_batch.crops],
            host_batch.label.to(self.device, non_blocking=True),
            host_batch.index.to(self.device, non_blocking=True),
        )
        return Batch([self._normalized(crop) for crop in crops], label, index)

    def to_pixels(self, crops: Tensor) -> np.ndarray:
        """Undo the normalisation: (B, 3, H, W) float32 to (B, H, W, 3) uint8, to be looked at."""
        pixels = (crops.permute(0, 2, 3, 1) - self._shift) / self._scale
        return pixels.round().clamp(0, 255).byte().cpu().numpy()

    def _normalized(self, crop: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in channels_last order."""
        # A row of pixels at a time: an inner dimension of three channels would be slow on a CPU.
        width = crop.shape[2]
        rows = crop.flatten(2).float()  # (B, H, W * 3)
        rows = torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width))
        return rows.view(crop.shape).permute(0, 3, 1, 2)


class ReadingCost(NamedTuple):
    """CPU time of the data workers, without what they wait for a disk."""

    images: float
    decode: float  # seconds, of all images together
    augment: float


class HostBatch(NamedTuple):
    """What a data worker hands over."""

    crops: list[Tensor]  # one (B, H, W, 3) uint8 tensor per crop
    label: Tensor  # (B,) int64
    index: Tensor  # type: ignore[assignment]  # (B,) int64
    bad: list[tuple[int, UnreadableImage]]  # positions that could not be read, and why


class BatchReader:
    """Reads and augments whole batches; the part of the loader that runs in data workers."""

    def __init__(
        self, dataset: ImageDataset, transform: Transform, seed: int, num_workers: int = 0
    ):
        self._dataset, self._transform, self._seed = dataset, transform, seed
        # shared by the data workers: each one's process and the image that it is at
        self._pids = RawArray(ctypes.c_int64, num_workers)
        self._positions = RawArray(ctypes.c_int64, [-1] * num_workers)
        # ... and what it has read, a `ReadingCost`; this process's own where there are none
        shared = RawArray(ctypes.c_double, max(1, num_workers) * len(ReadingCost._fields))
        self.costs = np.ctypeslib.as_array(shared).reshape(-1, len(ReadingCost._fields))
        self._worker: int | None = None
        self._philox = np.random.Philox(key=0)
        self._start = self._philox.state  # with nothing drawn yet
        self._rng = np.random.Generator(self._philox)

    def __call__(self, samples: list[tuple[int, int]]) -> HostBatch:
        """The batch of these ``(epoch, index)`` pairs.

        Raises:
            DataError: a image cannot be read, and none of its neighbours either.
        """
        bad: list[tuple[int, UnreadableImage]] = []
        sizes = self._transform.crop_sizes
        crops = [torch.empty(len(samples), size, size, 3, dtype=torch.uint8) for size in sizes]
        arrays = [crop.numpy() for crop in crops]
        indices = torch.empty(len(samples), dtype=torch.int64)
        decode = augment = 0.0
        for row, (epoch, index) in enumerate(samples):
            start = thread_time()
            image, indices[row] = self._read(index, bad)
            decoded = thread_time()
            self._seek(epoch, index)
            for array, crop in zip(arrays, self._transform(image, self._rng), strict=True):
                array[row] = crop
            decode += decoded - start
            augment += thread_time() - decoded
        self.costs[self._worker or 0] += len(samples), decode, augment
        return HostBatch(crops, self._labels(indices), indices, bad)

    def work_as(self, worker: int) -> None:
        """Become data worker ``worker``."""
        self._worker, self._pids[worker] = worker, os.getpid()

    def whereabouts(self, pids: Collection[int]) -> str:
        """The images that some data workers are at, or were at when they died."""
        positions = [p for pid, p in zip(self._pids, self._positions, strict=True) if pid in pids]
        return ", ".join(self._dataset.describe(p) for p in positions if p >= 0)

    def _note(self, position: int) -> None:
        if self._worker is not None:
            self._positions[self._worker] = position

    def _read(self, index: int, bad: list[tuple[int, UnreadableImage]]) -> tuple[np.ndarray, int]:
        """Image ``index``, or the next that can be read, with its position; adds to ``bad``."""
        errors = []
        for step in range(min(MAX_NEIGHBOURS + 1, len(self._dataset))):
            position = (index + step) % len(self._dataset)
            self._note(position)
            try:
                image = self._dataset.read(position)
            except UnreadableImage as error:
                errors.append(error)
                bad.append((position, error))
            else:
                return image, position
        raise DataError(
            f"{len(errors)} images in a row cannot be read, so that there is none to take their "
            f"place: {_name_some(errors)}"
        )

    def _seek(self, epoch: int, index: int) -> None:
        """Turn to the random numbers of one sample; those of different samples never overlap."""
        # Moving one generator is ten times as fast as making one.
        self._start["state"]["key"][:] = self._seed, epoch
        self._start["state"]["counter"][:] = 0, 0, 0, index
        self._philox.state = self._start

    def _labels(self, indices: Tensor) -> Tensor:
        if self._dataset.labels is None:
            return torch.full_like(indices, -1)
        return torch.from_numpy(self._dataset.labels[indices.numpy()])


def open_transport(
    read: BatchReader,
    batches: Iterable[list[tuple[int, int]]],
    *,
    num_workers: int,
    pin_memory: bool,
) -> Iterable[HostBatch]:
    """Bring batches from data workers into this process; each iteration is a pass over ``batches``.

    Everything that is known about processes lies behind this function.

    Raises while iterating:
        DataError: raised by ``read``.
        DataWorkerError: a worker has died.
    """
    return _Transport(read, batches, num_workers=num_workers, pin_memory=pin_memory)


class _Transport:
    def __init__(
        self,
        read: BatchReader,
        batches: Iterable[list[tuple[int, int]]],
        *,
        num_workers: int,
        pin_memory: bool,
    ):
        self._read = read
        # Set when this process lets go of its workers: as it ends, or as the loader does.
        released = RawValue(ctypes.c_bool, False)
        Finalize(self, _set, (released,), exitpriority=0)
        self._loader: Any = DataLoader(
            cast(Any, _CatchDataError(read)),
            sampler=batches,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # Forked workers share the data set's memory.
            multiprocessing_context="fork" if num_workers else None,
            worker_init_fn=partial(_start_worker, read, released),
            # Else each pass would draw a seed, which nothing here uses, from torch's own generator,
            # and a resumed run makes one pass more than an unbroken one.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[HostBatch]:
        try:
            for received in self._iterate():
                if isinstance(received, DataError):
                    try:
                        raise received
                    finally:
                        # An error that its own frame refers to is freed late, and with it the
                        # workers; torch then waits five seconds for each.
                        del received
                yield received
        except RuntimeError as error:
            message = str(error)
            if message.startswith("DataLoader worker") and "Traceback" not in message:
                image = self._read.whereabouts([int(pid) for pid in re.findall(r"\d+", message)])
                raise DataWorkerError(
                    f"a data worker has died{' at ' if image else ''}{image} "
                    f"({message.splitlines()[0]}); the usual reason is a lack of memory: "
                    "lower data.num_workers"
                ) from error
            raise

    def _iterate(self) -> Iterator[Any]:
        """A pass of torch's loader, which shall notice dead workers here and nowhere else.

        By itself it raises in the main thread when one dies, whatever that thread is doing.
        """
        handler = signal.getsignal(signal.SIGCHLD)
        # A new worker inherits the mask, and keeps it until it has handlers of its own.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
        try:
            batches = iter(self._loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)
        return batches


class _CatchDataError:
    """Hands over a ``DataError`` as a value: raised, it would arrive wrapped into a traceback."""

    def __init__(self, read: BatchReader):
        self._read = read

    def __getitem__(self, samples: list[tuple[int, int]]) -> HostBatch | DataError:
        try:
            return self._read(samples)
        except DataError as error:
            return error


def _set(flag: Any) -> None:
    flag.value = True


def _start_worker(read: BatchReader, released: Any, worker: int) -> None:
    read.work_as(worker)
    _leave_signals_to_main_process(released)


def _leave_signals_to_main_process(released: Any) -> None:
    """Ignore signals until ``released``.

    Ctrl-C and a scheduler's warnings reach every process of a job, but only the main process knows
    how to end a run, and needs its workers until then.
    """

    def end_if_released(number: int, frame: Any) -> None:
        if released.value:
            os._exit(0)

    for number in JOB_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_if_released)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, JOB_SIGNALS)


def _name_some(errors: Iterable[UnreadableImage]) -> str:
    named = [f"{error.name} ({error.reason})" for error in errors]
    rest = len(named) - MAX_NAMED
    return ", ".join(named[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
