"""The images that a list names."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.data.sets.image_folder import ImageFiles, existing
from ssl_platform.data.sets.image_list import Row, problem, read_image_list, shown
from ssl_platform.registry import DATASETS

MAX_PATH_BYTES = 4096  # Linux
MAX_NUMBER = 100_000  # classes whose numbers count them; larger numbers are names
Label = int | str | None
_NUMBER = re.compile(r"[+-]?\d{1,100}(?:\.0*)?")
_SEVERAL = re.compile(r"[+-]?\d+(?:[\s,;|]+[+-]?\d+)+")


@DATASETS.register()
class ListFile(ImageFiles):
    """The images of a list: lines of ``path`` or ``path label``, or a table ``path,label``.

    See `data.sets.image_list` for the forms. Labels are the numbers of the classes from 0
    on, or names, which are numbered in their order; so are numbers above `MAX_NUMBER`. ``-1`` or
    an empty column is no label: such an image is trained on and left out of what needs labels.

    Args:
        path: the list; UTF-8 or, with its mark, UTF-16.
        root: folder that the paths in it are relative to; None for that of the list.
        allow_outside: whether they may lead out of ``root``, by ``..`` or from ``/`` on.

    Raises:
        ValueError: no such file or folder, one that may not be read, no image listed, or a line
            that is not understood.
    """

    def __init__(self, *, path: str, root: str | None = None, allow_outside: bool = False):
        self.path = path
        if os.path.isdir(os.path.expanduser(path)):
            raise ValueError(f"path={path}: a folder is read by data=folder data.train.path={path}")
        file = existing("path", path, directory=False)
        folder = os.path.dirname(file) or "."
        self.root = folder if root is None else existing("root", root, directory=True)
        try:
            listed = read_image_list(Path(file).read_bytes(), self.root)
            names, labels = _paths_and_labels(listed.rows, self.root, allow_outside=allow_outside)
        except OSError as error:
            raise ValueError(f"path={path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"path={path}: {error}") from error
        self._unused, self._again = listed.unused, len(names) - len(set(names))
        self.files = FileTable([os.fsencode(self.root)], [len(names)], Names.pack(names))
        self.labels, self.classes = _numbered(labels)

    def summary(self) -> str:
        parts = [super().summary()]
        if self.labels is not None and (self.labels < 0).any():
            parts.append(f"{(self.labels < 0).sum()} without a label")
        if self._again:
            parts.append(f"{self._again} named more than once")
        if self._unused:
            parts.append(f"columns that are not used: {', '.join(self._unused)}")
        return "; ".join(parts)

    def probe(self) -> None:
        try:
            super().probe()
        except ValueError as error:
            raise ValueError(f"{error} (paths begin at root={self.root})") from error


def _paths_and_labels(
    rows: Iterator[Row], root: str, *, allow_outside: bool
) -> tuple[list[bytes], list[Label]]:
    """Paths and labels of all rows.

    Raises:
        ValueError: a row cannot be right, or does not go with those before it.
    """
    names: list[bytes] = []
    labels: list[Label] = []
    same: dict[Label, Label] = {}  # one object for each label, however many lines have it
    first: Row | None = None
    example: tuple[Row, Label] | None = None  # of a label
    for row in rows:
        if first is None:
            first = row
            _refuse_backslashes(row, root)
        names.append(_name(row, root, allow_outside=allow_outside))
        label = _label(row)
        if (row.label is None) != (first.label is None):
            has, its = ("no", "one") if row.label is None else ("a", "none")
            what = f"has {has} label, but line {first.line} has {its}; -1 stands for no label"
            raise problem(row.line, row.text, what)
        if label is not None:
            example = example or (row, label)
            _refuse_mixed(row, label, *example)
        labels.append(same.setdefault(label, label))
    if not names:
        raise ValueError("lists no image")
    return names, labels


def _refuse_backslashes(row: Row, root: str) -> None:
    turned = row.path.replace("\\", "/")
    there = [os.path.exists(os.path.join(root, path)) for path in (row.path, turned)]
    if there == [False, True]:
        raise problem(row.line, row.text, f"is there as {turned!r}: write paths with /")


def _name(row: Row, root: str, *, allow_outside: bool) -> bytes:
    path = os.path.expanduser(row.path) if row.path.startswith("~/") else row.path
    name = os.fsencode(path)
    if len(name) > MAX_PATH_BYTES:
        raise problem(row.line, row.text, "is longer than a path may be")
    if not allow_outside and _leads_out(name, os.fsencode(root)):
        what = f"leads out of root={root}; to permit it set allow_outside=true"
        raise problem(row.line, row.text, what)
    return name


def _leads_out(name: bytes, root: bytes) -> bool:
    """Whether a path leaves the folder that it starts in; links are taken as they are."""
    if b".." not in name and not name.startswith(b"/"):
        return False
    normal = os.path.normpath(name)
    if os.path.isabs(normal):
        return not normal.startswith(os.path.join(os.path.abspath(root), b""))
    return normal.split(b"/")[0] == b".."


def _label(row: Row) -> Label:
    """A number, a name, or None."""
    label = (row.label or "").strip('" ')
    if _NUMBER.fullmatch(label):
        number = int(label.partition(".")[0])
        if number < -1:
            what = f"has label {number}; labels count the classes from 0, and -1 is none"
            raise problem(row.line, row.text, what)
        return None if number == -1 else number
    if _SEVERAL.fullmatch(label):
        raise problem(row.line, row.text, "has several labels; an image has one")
    return label or None


def _refuse_mixed(row: Row, label: Label, other: Row, its: Label) -> None:
    """Numbers and names together: one of them is a slip."""
    if type(label) is not type(its):
        what = f"has the label {shown(str(label))}, but line {other.line} has {shown(str(its))}"
        raise problem(row.line, row.text, f"{what}; labels are all numbers or all names")


def _numbered(labels: Sequence[Label]) -> tuple[np.ndarray | None, list[str] | None]:
    """(N,) classes, -1 for none, and their names where they have any."""
    known = {label for label in labels if label is not None}
    if not known:
        return None, None
    numbers = [label for label in known if isinstance(label, int)]
    if numbers and max(numbers) <= MAX_NUMBER:
        return np.array([-1 if n is None else n for n in labels], dtype=np.int64), None
    names: list[int | str] = [*sorted(numbers)] or [*sorted(map(str, known), key=os.fsencode)]
    number: dict[Label, int] = {name: value for value, name in enumerate(names)}
    classes = [printable(os.fsencode(str(name))) for name in names]
    return np.array([number.get(label, -1) for label in labels], dtype=np.int64), classes
