"""A part of a folder of images: the few labels of semi-supervised learning."""

import hashlib
import os
from itertools import groupby
from pathlib import Path

import numpy as np

from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.decoding.pixels import Notes
from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.data.sets.folder_scan import LITTER
from ssl_platform.data.sets.image_folder import ImageFiles, existing
from ssl_platform.ops.sampling import shuffled_by_class
from ssl_platform.registry import DATASETS

MAX_NAMED = 3  # files in an error message


class StratifiedSubset(ImageDataset):
    """The same part of every class of a set, at least one image of each, drawn by a seed.

    Args:
        whole: labelled images.
        fraction: of each class's images, rounded.
        seed: of the draw.

    Raises:
        ValueError: the images have no labels, or the fraction is outside (0, 1].
    """

    def __init__(self, whole: ImageDataset, *, fraction: float, seed: int):
        if not 0 < fraction <= 1:
            raise ValueError(f"train_fraction={fraction}: above 0, up to 1, e.g. 0.01")
        if whole.labels is None:
            raise ValueError(
                f"train_fraction={fraction}: the same part of every class, but the training images "
                "have no labels"
            )
        self.whole = whole
        labelled = np.flatnonzero(whole.labels >= 0)
        order, turn, counts = shuffled_by_class(whole.labels, labelled, np.random.default_rng(seed))
        self.positions = np.sort(order[turn < np.maximum(1, np.rint(fraction * counts))])
        self.labels, self.classes = whole.labels[self.positions], whole.classes
        self.channels = whole.channels

    def __len__(self) -> int:
        return len(self.positions)

    def read(self, index: int) -> np.ndarray:
        return self.whole.read(int(self.positions[index]))

    def read_noting(self, index: int, notes: Notes) -> np.ndarray:
        return self.whole.read_noting(int(self.positions[index]), notes)

    def describe(self, index: int) -> str:
        return self.whole.describe(int(self.positions[index]))

    def uri(self, index: int) -> str | None:
        return self.whole.uri(int(self.positions[index]))

    def stamp(self, index: int) -> tuple[int, int] | None:
        return self.whole.stamp(int(self.positions[index]))

    def summary(self) -> str:
        return f"{len(self)} of {self.whole.summary()}"

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self.positions.astype("<i8").tobytes(), digest_size=16)
        return self.whole.fingerprint() + digest.hexdigest()

    def prepare(self) -> None:
        self.whole.prepare()

    def probe(self) -> None:
        self.whole.probe()


@DATASETS.register()
class NamedSubset(ImageFiles):
    """The images that a list names by file name alone, as the 1 % and 10 % lists of ImageNet that
    came with SimCLR do: ``n01440764_10183.JPEG``, which is in the class folder ``n01440764``.

    Args:
        path: folder with a folder for each class; all of them are classes, listed or not.
        list_file: text file, one name a line.

    Raises:
        ValueError: no such folder or file, or a listed image is not there.
    """

    def __init__(self, *, path: str, list_file: str):
        self.path = path
        root = os.fsencode(existing("path", path, directory=True))
        names = Path(existing("list_file", list_file, directory=False)).read_bytes().split()
        if not names:
            raise ValueError(f"list_file={list_file}: lists no image")
        classes = sorted(entry.name for entry in os.scandir(root) if _is_class(entry))
        number = {name: label for label, name in enumerate(classes)}
        paths = [os.path.join(root, name.partition(b"_")[0], name) for name in names]
        missing = [p for p in paths if not os.path.isfile(p)]
        if missing:
            some = ", ".join(os.fsdecode(p) for p in missing[:MAX_NAMED])
            raise ValueError(
                f"list_file={list_file}: {len(missing)} of {len(paths)} images are not in {path}, "
                f"e.g. {some}"
            )
        grouped = {
            folder: [os.path.basename(p) for p in group]
            for folder, group in groupby(sorted(paths), key=os.path.dirname)
        }
        self.classes = [printable(name) for name in classes]
        self.files = FileTable(
            list(grouped),
            [len(group) for group in grouped.values()],
            Names.pack([name for group in grouped.values() for name in group]),
        )
        self.labels = np.repeat(
            np.array([number[os.path.basename(folder)] for folder in grouped], dtype=np.int64),
            [len(group) for group in grouped.values()],
        )


def _is_class(entry: os.DirEntry[bytes]) -> bool:
    """Whether `ImageFolder` would look into a folder, and it is not empty."""
    is_looked_into = not entry.name.startswith(b".") and entry.name.lower() not in LITTER
    return is_looked_into and entry.is_dir() and bool(os.listdir(entry.path))
