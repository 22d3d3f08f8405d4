"""The images that a list names."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_platform.data.decode import printable
from ssl_platform.data.file_table import FileTable, Names
from ssl_platform.data.image_folder import ImageFiles, existing
from ssl_platform.data.image_list import Row, problem, read_image_list, shown
from ssl_platform.registry import DATASETS

MAX_PATH_BYTES = 4096  # Linux
MAX_NUMBER = 100_000  # classes whose numbers count them; larger numbers are names
_NUMBER = re.compile(r"[+-]?\d{1,100}(?:\.0*)?")
_SEVERAL = re.compile(r"[+-]?\d+(?:[\s,;|]+[+-]?\d+)+")


@DATASETS.register()
class ListFile(ImageFiles):
    """The images of a list: lines of ``path`` or ``path label``, or a table ``path,label``.

    See `ssl_platform.data.image_list` for the forms. Labels are the numbers of the classes from 0
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
        file = existing("path", path, directory=False)
        folder = os.path.dirname(file) or "."
        self.root = folder if root is None else existing("root", root, directory=True)
        try:
            rows, self._unused = read_image_list(Path(file).read_bytes(), self.root)
            names = _names(rows, self.root, allow_outside=allow_outside)
            self.labels, self.classes = _labels(rows)
        except OSError as error:
            raise ValueError(f"path={path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"path={path}: {error}") from error
        self.files = FileTable([os.fsencode(self.root)], [len(names)], Names.pack(names))
        self._again = len(names) - len(set(names))

    def found(self) -> str:
        told = [super().found()]
        if self.labels is not None and (self.labels < 0).any():
            told.append(f"{(self.labels < 0).sum()} without a label")
        if self._again:
            told.append(f"{self._again} named more than once")
        if self._unused:
            told.append(f"columns that are not used: {', '.join(self._unused)}")
        return "; ".join(told)

    def probe(self) -> None:
        try:
            super().probe()
        except ValueError as error:
            raise ValueError(f"{error} (paths begin at root={self.root})") from error


def _names(rows: Sequence[Row], root: str, *, allow_outside: bool) -> list[bytes]:
    names = []
    for row in rows:
        path = os.path.expanduser(row.path) if row.path.startswith("~/") else row.path
        name = os.fsencode(path)
        if len(name) > MAX_PATH_BYTES:
            raise problem(row.line, row.text, "is longer than a path may be")
        if not allow_outside and _leads_out(name, os.fsencode(root)):
            raise problem(
                row.line, row.text, f"leads out of root={root}; to permit it set allow_outside=true"
            )
        names.append(name)
    first, turned = rows[0], rows[0].path.replace("\\", "/")
    there = [os.path.exists(os.path.join(root, path)) for path in (first.path, turned)]
    if there == [False, True]:
        raise problem(first.line, first.text, f"is there as {turned!r}: paths need / for \\")
    return names


def _leads_out(name: bytes, root: bytes) -> bool:
    """Whether a path leaves the folder that it starts in; links are taken as they are."""
    normal = os.path.normpath(name)
    if os.path.isabs(normal):
        return not normal.startswith(os.path.join(os.path.abspath(root), b""))
    return normal.split(b"/")[0] == b".."


def _labels(rows: Sequence[Row]) -> tuple[np.ndarray | None, list[str] | None]:
    """(N,) classes, -1 for none, and their names where they have any."""
    first = rows[0]
    for row in rows:
        if (row.label is None) != (first.label is None):
            has, its = ("no", "one") if row.label is None else ("a", "none")
            what = f"has {has} label, but line {first.line} has {its}; -1 stands for no label"
            raise problem(row.line, row.text, what)
    values = [_value(row) for row in rows]
    known = {value for value in values if value is not None}
    if not known:
        return None, None
    _refuse_mixed(rows, values)
    numbers = [value for value in known if isinstance(value, int)]
    if numbers and max(numbers) <= MAX_NUMBER:
        return np.array([-1 if v is None else v for v in values], dtype=np.int64), None
    names: list[int | str] = [*sorted(numbers)] or [*sorted(map(str, known), key=os.fsencode)]
    number: dict[int | str | None, int] = {name: label for label, name in enumerate(names)}
    labels = np.array([number.get(value, -1) for value in values], dtype=np.int64)
    return labels, [printable(os.fsencode(str(name))) for name in names]


def _value(row: Row) -> int | str | None:
    """The label of a line: a number, a name, or None."""
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


def _refuse_mixed(rows: Sequence[Row], values: Sequence[int | str | None]) -> None:
    """Numbers and names together: one of them is a slip."""
    known = [(row, value) for row, value in zip(rows, values, strict=True) if value is not None]
    first, expected = known[0]
    for row, value in known:
        if type(value) is not type(expected):
            raise problem(
                row.line, row.text,
                f"has the label {shown(str(value))}, but line {first.line} has "
                f"{shown(str(expected))}; labels are all numbers or all names",
            )  # fmt: skip
