"""What a data set is to the platform: images by index, and labels if there are any."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ssl_platform.data.pixels import Notes, PixelOptions

NUM_NAMED = 5  # classes in one line


class UnreadableImage(Exception):  # noqa: N818 (a fact about a file, not a fault of the program)
    """One image cannot be read; the run goes on with another in its place."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class ImageDataset(ABC):
    """Images by index.

    A constructor finds out how many images there are and what their labels are. Anything slow or
    large waits for ``prepare`` or for the first ``read``, since every config check constructs.
    """

    labels: np.ndarray | None  # (N,) int64 class; None when the set is unlabelled
    classes: Sequence[str] | None = None  # name of each class; None where the set has no names
    pixels = PixelOptions()  # of sets that read files; set by the program before the first read

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def num_classes(self) -> int | None:
        """Classes are numbered from 0 up to this; None when the set is unlabelled."""
        return None if self.labels is None else int(self.labels.max(initial=-1)) + 1

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Image ``index``; (H, W, 3) uint8 RGB, not to be written to.

        Raises:
            UnreadableImage: this one cannot be read.
        """

    def read_noting(self, index: int, notes: Notes) -> np.ndarray:
        """`read`, where what there is to say of a file goes into ``notes``: sets of files do."""
        return self.read(index)

    @abstractmethod
    def describe(self, index: int) -> str:
        """Where image ``index`` comes from, in one line: a path, or ``Shapes[12]``."""

    def found(self) -> str:
        """What is there and what was left out, in one line."""
        classes = f" in {_some(self.classes)}" if self.labels is not None and self.classes else ""
        return f"{len(self)} images{classes}"

    def fingerprint(self) -> str:
        """The same for the same images in the same order: a bank of embeddings goes by position.

        By default of the number of images and their labels; sets of files add the names.
        """
        digest = hashlib.blake2b(str(len(self)).encode(), digest_size=16)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def prepare(self) -> None:  # noqa: B027 (most sets have nothing to prepare)
        """Load or make what all images share.

        Called once in each training process, before data workers are forked, so that they share it.
        """

    def probe(self) -> None:  # noqa: B027 (only sets of files can be unreadable as a whole)
        """Find out before a run that the set is of no use: file-based sets read a few images.

        Raises:
            ValueError: not one of them can be read.
        """


def _some(classes: Sequence[str]) -> str:
    """The number of classes, with the names of the first few."""
    names = ", ".join(classes[:NUM_NAMED]) + (", ..." if len(classes) > NUM_NAMED else "")
    return f"{len(classes)} {'class' if len(classes) == 1 else 'classes'} ({names})"
