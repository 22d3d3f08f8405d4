"""What a data set is to the platform: images by index, and labels if there are any."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_platform.data.decoding.pixels import COLOURS, Notes, PixelOptions

NUM_NAMED = 5  # classes in one line
NUM_STAMPS = 1000  # images whose files are looked at; a local disk answers in milliseconds


class UnreadableImage(Exception):  # noqa: N818 (a fact about a file, not a fault of the program)
    """One image cannot be read; the run goes on with another in its place."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class FileChanges(NamedTuple):
    """How some files have changed since a run was saved."""

    resized: list[str]  #: those of another size, with both sizes
    touched: list[str]  #: those of another time, and those that are gone or have come
    is_copy: bool  #: all have other times and the same sizes


class ImageDataset(ABC):
    """Images by index.

    A constructor finds out how many images there are and what their labels are. Anything slow or
    large waits for ``prepare`` or for the first ``read``, since every config check constructs.
    """

    labels: np.ndarray | None  #: (N,) int64 class; None when the set is unlabelled
    channels: int = COLOURS  #: of each image; sets of files have those that ``pixels`` asks for
    classes: Sequence[str] | None = None  #: name of each class; None where the set has no names
    pixels = PixelOptions()  # of sets that read files; set by the program before the first read
    is_prepared = False  # set by the program

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def num_classes(self) -> int | None:
        """Classes are numbered from 0 up to this; None when the set is unlabelled."""
        if self.labels is None:
            return None
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Image ``index``; (H, W, C) uint8 of C ``channels``, RGB if they are three; not to be
        written to.

        Raises:
            UnreadableImage: this one cannot be read.
        """

    def read_noting(self, index: int, notes: Notes) -> np.ndarray:
        """`read`; sets of files also write into ``notes`` what is unusual about the file."""
        return self.read(index)

    @abstractmethod
    def describe(self, index: int) -> str:
        """Where image ``index`` comes from, in one line: a path, or ``Shapes[12]``."""

    def uri(self, index: int) -> str | None:
        """Where image ``index`` can be opened again, whatever bytes its name has; None if it is no
        file."""
        return None

    def summary(self) -> str:
        """What the set holds and what was left out, in one line."""
        what = f"{len(self)} {'image' if len(self) == 1 else 'images'}"
        if self.labels is None:
            return what
        names = [] if self.classes is None else list(self.classes)
        number = len(names) or len(np.unique(self.labels[self.labels >= 0]))
        some = ", ".join(names[:NUM_NAMED]) + (", ..." if len(names) > NUM_NAMED else "")
        what += f" in {number} {'class' if number == 1 else 'classes'}"
        return f"{what} ({some})" if some else what

    def fingerprint(self) -> str:
        """The same for the same images in the same order: a bank of embeddings goes by position.

        By default of the number of images and their labels; sets of files add the names.
        """
        digest = hashlib.blake2b(str(len(self)).encode(), digest_size=16)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def stamp(self, index: int) -> tuple[int, int] | None:
        """Size in bytes and time in ns of the last change of image ``index``.

        (-1, -1) where it is gone; None if it is no file.
        """
        return None

    def sample(self) -> dict[int, tuple[int, int]]:
        """Stamps of some images by their position, the same ones each time."""
        count = min(len(self), NUM_STAMPS)
        chosen = np.random.default_rng(len(self)).choice(len(self), count, replace=False)
        stamps = {position: self.stamp(position) for position in np.sort(chosen).tolist()}
        return {position: stamp for position, stamp in stamps.items() if stamp is not None}

    def changes_since(self, sample: Mapping[int, tuple[int, int]]) -> "FileChanges":
        """How the files of an earlier sample have changed."""
        resized, touched = [], []
        for position, (size, time) in sample.items():
            size_now, time_now = self.stamp(position) or (size, time)
            if size_now != size and -1 not in (size, size_now):
                place = self.describe(position)
                resized.append(f"{place}: {size} bytes before, {size_now} now")
            elif (size_now, time_now) != (size, time):
                touched.append(self.describe(position))
        is_copy = len(touched) == len(sample) > 1
        return FileChanges(resized, [] if is_copy else touched, is_copy)

    def prepare(self) -> None:  # noqa: B027 (most sets have nothing to prepare)
        """Load or make what all images share.

        Called once in each training process, before data workers are forked, so that they share it.
        """

    def probe(self) -> None:  # noqa: B027 (only sets of files can be unreadable as a whole)
        """Refuse a set that cannot be read at all: sets of files try a few images.

        Raises:
            ValueError: not one of them can be read.
        """
