"""Images in, crops out: the part of the loader that runs in data workers."""

import ctypes
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from multiprocessing.sharedctypes import RawArray
from time import thread_time
from typing import NamedTuple, Protocol

import numpy as np

from ssl_platform.data.contract import make_crops, read_image
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.pixels import Notes
from ssl_platform.errors import DataError, first_few
from ssl_platform.ops.image_size import ImageSize


class Transform(Protocol):
    """An image in, its crops out; crops of equal size are adjacent."""

    @property
    def num_crops(self) -> int:
        """Crops of each image."""
        ...

    @property
    def crop_sizes(self) -> list[ImageSize]:
        """Side of each crop, or its height and width, in pixels."""
        ...

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]: ...


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
        limit: on unreadable images; says whether another stands in for one, else its crops are
            zeros.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        seed: int,
        num_workers: int,
        *,
        limit: "BadImageLimit",
    ):
        self._dataset, self._transform = dataset, transform
        self._seed, self._limit = seed, limit
        # shared by the data workers: the image that each is at
        self._positions = RawArray(ctypes.c_int64, [-1] * num_workers)
        self._worker: int | None = None
        self._damaged: list[tuple[int, UnreadableImage]] = []
        self._rng = np.random.Generator(np.random.Philox(key=0))
        self._start = self._rng.bit_generator.state  # with nothing drawn yet

    @property
    def crop_sizes(self) -> list[ImageSize]:
        """Side of each crop, or its height and width, in pixels."""
        return self._transform.crop_sizes

    def __call__(
        self,
        samples: Sequence[tuple[int, int]],
        crops: list[np.ndarray],
        indices: np.ndarray,
    ) -> Report:
        """Read a batch into the first B rows of some arrays.

        Args:
            samples: B ``(epoch, index)`` pairs.
            crops: one (>= B, height, width, 3) uint8 array per crop.
            indices: (>= B,) int64, of the images that were read.

        Raises:
            DataError: more images than may be cannot be read.
        """
        bad: list[tuple[int, UnreadableImage]] = []
        decode = augment = 0.0
        for row, (epoch, index) in enumerate(samples):
            start = thread_time()
            image, indices[row] = self._read(index, bad)
            decoded = thread_time()
            if image is None:
                for rows in crops:
                    rows[row] = 0
                continue
            self._seek(epoch, index)
            made = make_crops(self._transform, image, self._rng)
            for rows, crop in zip(crops, made, strict=True):
                rows[row] = crop
            decode += decoded - start
            augment += thread_time() - decoded
        self._mark(-1)
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

    def current_image(self, worker: int) -> str:
        """The image that a data worker is at, or was at when it died; empty if there is none."""
        position = self._positions[worker]
        return self._dataset.describe(position) if position >= 0 else ""

    def _mark(self, position: int) -> None:
        if self._worker is not None:
            self._positions[self._worker] = position

    def _read(
        self, index: int, bad: list[tuple[int, UnreadableImage]]
    ) -> tuple[np.ndarray | None, int]:
        """Image ``index`` or what stands in for it, with its position; adds to ``bad``."""
        errors = []
        for position in self._candidates(index):
            self._mark(position)
            try:
                return self._read_one(position), position
            except UnreadableImage as error:
                errors.append(error)
                bad.append((position, error))
        if self._limit.replace_bad:
            raise self._limit.error(errors)
        return None, index

    def _candidates(self, index: int) -> Iterator[int]:
        """Image ``index``, then those that may stand in for it, each once.

        They are a stride apart that the seed and the image decide: files that follow each other
        are often bad together, and a resumed run takes the same ones.
        """
        yield index
        size = len(self._dataset)
        if self._limit.replace_bad and size > 1:
            stride = _stride(self._seed, index, size)
            for step in range(1, min(size, self._limit.allowed + 1)):
                yield (index + step * stride) % size

    def _read_one(self, position: int) -> np.ndarray:
        notes = Notes()
        image = read_image(self._dataset, position, notes)
        if notes.damage:
            named = UnreadableImage(self._dataset.describe(position), notes.damage)
            self._damaged.append((position, named))
        return image

    def _seek(self, epoch: int, index: int) -> None:
        """Move the generator to the random numbers of one sample, which no other sample shares."""
        # Moving one generator is ten times as fast as making one.
        self._start["state"]["key"][:] = self._seed, epoch
        self._start["state"]["counter"][:] = 0, 0, 0, index
        self._rng.bit_generator.state = self._start


@dataclass(frozen=True)
class BadImageLimit:
    """How many of a set's images may be unreadable."""

    fraction: float  # of all
    num_images: int
    replace_bad: bool  # whether others stand in for them

    @property
    def allowed(self) -> int:
        """One at least: a single bad file is no reason to stop."""
        return max(1, int(self.fraction * self.num_images))

    def error(self, bad: Collection[UnreadableImage], num_tried: int | None = None) -> DataError:
        """The error where there are too many, of all images or of ``num_tried``."""
        number, what = num_tried or self.num_images, "images tried" if num_tried else "images"
        if len(bad) == number:
            return DataError(f"none of the {number} {what} can be read: {_with_reasons(bad)}")
        how = "with others in their place" if self.replace_bad else "without them"
        enough = min(1.0, 2 * len(bad) / number)
        allowed = f"{self.allowed} of {self.num_images}" if num_tried else self.allowed
        return DataError(
            f"{len(bad)} of {number} {what} cannot be read, "
            f"data.max_bad_fraction={self.fraction} allows {allowed}: {_with_reasons(bad)}; "
            f"to go on {how} set data.max_bad_fraction={enough:.1g}"
        )


def _stride(seed: int, index: int, size: int) -> int:
    """A step that leads from an image to all of ``size``, drawn for this one."""
    rng = np.random.default_rng((seed, index))
    return next(n for n in iter(lambda: int(rng.integers(1, size)), 0) if gcd(n, size) == 1)


def _with_reasons(errors: Iterable[UnreadableImage]) -> str:
    """The first few files, with what is wrong with each, and how many more there are."""
    return first_few([f"{error.name} ({error.reason})" for error in errors])
