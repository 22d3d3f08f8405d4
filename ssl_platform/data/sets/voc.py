"""The classification images of PASCAL VOC 2007, each of which may be of several classes."""

import hashlib
import os
from pathlib import Path

import numpy as np

from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.data.sets.image_folder import ImageFiles, existing
from ssl_platform.registry import DATASETS


@DATASETS.register()
class VOC2007(ImageFiles):
    """Images of a split, and what is in them; ``labels`` is None, since an image has no one class.

    Args:
        path: the folder ``VOC2007`` of the development kit, with ``JPEGImages`` and
            ``ImageSets/Main``.
        split: such as trainval or test: ``ImageSets/Main/<class>_<split>.txt`` has for each image
            its name and 1 (present), -1 (absent) or 0 (present but difficult to see).

    Attributes:
        targets: (N, classes) int8 of 1, -1 and 0.

    Raises:
        ValueError: there are no such files, or they do not fit together.
    """

    labels = None

    def __init__(self, *, path: str, split: str):
        self.path = path
        folder = Path(existing("path", path, directory=True))
        suffix = f"_{split}.txt"
        lists = sorted((folder / "ImageSets" / "Main").glob(f"*{suffix}"))
        if not lists:
            raise ValueError(f"path={path}: no {folder / 'ImageSets' / 'Main'}/*{suffix} there")
        self.classes = [file.name.removesuffix(suffix) for file in lists]
        try:
            columns = [_read_list(file) for file in lists]
        except ValueError as error:
            raise ValueError(f"path={path}: {error}") from error
        names = list(columns[0])
        for file, column in zip(lists, columns, strict=True):
            if list(column) != names:
                raise ValueError(f"path={path}: {file} does not list the images of {lists[0]}")
        self.targets = np.array([list(column.values()) for column in columns], dtype=np.int8).T
        self.files = FileTable(
            [os.fsencode(folder / "JPEGImages")],
            [len(names)],
            Names.pack([f"{name}.jpg".encode() for name in names]),
        )

    def fingerprint(self) -> str:
        marks = hashlib.blake2b(self.targets.tobytes(), digest_size=16)
        return super().fingerprint() + marks.hexdigest()


def _read_list(file: Path) -> dict[str, int]:
    """The mark of each image, by its name."""
    marks = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        name, _, mark = line.strip().partition(" ")
        if mark.strip() not in ("1", "-1", "0"):
            raise ValueError(f"{file}: line {number}: {line!r} is no name with 1, -1 or 0")
        marks[name] = int(mark)
    return marks
