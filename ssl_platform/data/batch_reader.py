"""Images in, crops out: the part of the loader that runs in data workers."""

import ctypes
from collections.abc import Iterable, Sequence
from multiprocessing.sharedctypes import RawArray
from time import thread_time
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.normalize import Normalize
from ssl_platform.data.pixels import Notes
from ssl_platform.errors import DataError

MAX_NEIGHBOURS = 16  # tried in place of one unreadable image
MAX_NAMED = 5  # files in an error message


class Transform(Protocol):
    """An image in, its crops out; crops of equal size are adjacent."""

    @property
    def num_crops(self) -> int: ...

    @property
    def crop_sizes(self) -> list[int]: ...

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]: ...


class DeviceTransform(Transform, Protocol):
    """A transform that leaves a part of its work to the device.

    What is left to do for a crop is told by some numbers, which travel with it: ``parameters``,
    float32, (num_crops, num_parameters) of one image where they are written, (B, num_crops,
    num_parameters) of a batch where crops are finished. ``finish`` takes one (B, size, size, 3)
    uint8 tensor per crop and gives float32 ones, from 0 to 255, on the same device.
    """

    num_parameters: int  # of each crop; 0 leaves nothing to do

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator, parameters: np.ndarray | None = None
    ) -> list[np.ndarray]: ...

    def finish(self, crops: list[Tensor], parameters: np.ndarray) -> list[Tensor]: ...


class ReadingCost(NamedTuple):
    """CPU time of reading, without what is waited for a disk."""

    images: int
    decode: float  # seconds, of all images together
    augment: float

    def __add__(self, other: "ReadingCost") -> "ReadingCost":  # type: ignore[override]
        images, decode, augment = other
        return ReadingCost(self.images + images, self.decode + decode, self.augment + augment)


class Report(NamedTuple):
    """How the reading of some images went."""

    bad: list[tuple[int, UnreadableImage]]  # positions that could not be read, and why
    cost: ReadingCost
    damaged: Sequence[tuple[int, UnreadableImage]] = ()  # used all the same, and what is wrong


class BatchReader:
    """Reads and augments whole batches.

    Args:
        dataset: images; ``prepare`` has been called.
        transform: gives an image's crops.
        seed: of the augmentation.
        num_workers: processes that share the reading.
        normalize: of the crops; None leaves them uint8.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        seed: int,
        num_workers: int,
        normalize: Normalize | None = None,
    ):
        self._normalize = normalize
        self._dataset, self._transform, self._seed = dataset, transform, seed
        # shared by the data workers: the image that each is at
        self._positions = RawArray(ctypes.c_int64, [-1] * num_workers)
        self._worker: int | None = None
        self._damaged: list[tuple[int, UnreadableImage]] = []
        self._rng = np.random.Generator(np.random.Philox(key=0))
        self._start = self._rng.bit_generator.state  # with nothing drawn yet

    @property
    def crop_sizes(self) -> list[int]:
        """Side of each crop, in pixels."""
        return self._transform.crop_sizes

    @property
    def crop_dtype(self) -> np.dtype:
        """uint8, or float32 where crops are normalised here."""
        return np.dtype(np.uint8 if self._normalize is None else np.float32)

    @property
    def num_parameters(self) -> int:
        """Numbers that tell what is left to do for a crop."""
        return getattr(self._transform, "num_parameters", 0)

    def __call__(
        self,
        samples: Sequence[tuple[int, int]],
        crops: list[np.ndarray],
        indices: np.ndarray,
        parameters: np.ndarray,
    ) -> Report:
        """Read a batch into the first B rows of some arrays.

        Args:
            samples: B ``(epoch, index)`` pairs.
            crops: one (>= B, size, size, 3) array of ``crop_dtype`` per crop.
            indices: (>= B,) int64, of the images that were read.
            parameters: (>= B, crops, num_parameters) float32, see ``DeviceTransform``.

        Raises:
            DataError: an image cannot be read, and none of its neighbours either.
        """
        bad: list[tuple[int, UnreadableImage]] = []
        decode = augment = 0.0
        for row, (epoch, index) in enumerate(samples):
            start = thread_time()
            image, indices[row] = self._read(index, bad)
            decoded = thread_time()
            self._seek(epoch, index)
            more = [parameters[row]] if self.num_parameters else []
            for rows, crop in zip(crops, self._transform(image, self._rng, *more), strict=True):
                if self._normalize is None:
                    rows[row] = crop
                else:
                    self._normalize(crop, rows[row])
            decode += decoded - start
            augment += thread_time() - decoded
        self._note(-1)
        cost = ReadingCost(len(samples), decode, augment)
        damaged, self._damaged = self._damaged, []
        return Report(bad, cost, damaged)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """(B,) int64 class of each of some images, -1 where the data set has none."""
        if self._dataset.labels is None:
            return np.full_like(indices, -1)
        return np.asarray(self._dataset.labels[indices], dtype=np.int64)

    def work_as(self, worker: int) -> None:
        """Become data worker ``worker``."""
        self._worker = worker

    def whereabouts(self, worker: int) -> str:
        """The image that a data worker is at, or was at when it died; empty if there is none."""
        position = self._positions[worker]
        return self._dataset.describe(position) if position >= 0 else ""

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
                image = self._read_one(position)
            except UnreadableImage as error:
                errors.append(error)
                bad.append((position, error))
            else:
                return image, position
        raise DataError(
            f"{len(errors)} images in a row cannot be read, so that there is none to take their "
            f"place: {name_some(errors)}"
        )

    def _read_one(self, position: int) -> np.ndarray:
        notes = Notes()
        image = self._dataset.read_noting(position, notes)
        if notes.damage:
            named = UnreadableImage(self._dataset.describe(position), notes.damage)
            self._damaged.append((position, named))
        return image

    def _seek(self, epoch: int, index: int) -> None:
        """Turn to the random numbers of one sample; those of different samples never overlap."""
        # Moving one generator is ten times as fast as making one.
        self._start["state"]["key"][:] = self._seed, epoch
        self._start["state"]["counter"][:] = 0, 0, 0, index
        self._rng.bit_generator.state = self._start


def name_some(errors: Iterable[UnreadableImage]) -> str:
    """The first few files, with what is wrong with each, and how many more there are."""
    named = [f"{error.name} ({error.reason})" for error in errors]
    rest = len(named) - MAX_NAMED
    return ", ".join(named[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
