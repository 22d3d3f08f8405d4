"""Takes lists of images apart, into paths and labels as they are written.

Two forms: lines of ``path`` or ``path label``, and tables of columns between commas, semicolons or
tabs, as the csv module reads them. The columns of a table are ``path,label``, or as its first line
names them.
"""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from ssl_platform.data.sets.folder_scan import EXTENSIONS, HEIC

PATH_COLUMNS = (
    "path", "file_path", "filepath", "image_path", "img_path", "file", "file_name", "filename",
    "image", "image_name", "img",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "category", "target", "class_id", "category_id",
)  # fmt: skip
DELIMITERS = "\t,;"
LONGEST_LINE = 10_000  # letters, of a path and a label
_ENDINGS = tuple(ending.decode() for ending in (*EXTENSIONS, *HEIC))
_ENDING = f"(?:{'|'.join(map(re.escape, _ENDINGS))})"
_NAMES_AN_IMAGE = re.compile(rf"{_ENDING}\b", re.IGNORECASE)
_LABELLED_LINE = re.compile(rf"(.*{_ENDING})\s+(\S.*)", re.IGNORECASE)
_NUMBERED_LINE = re.compile(r"(.*\S)\s+([+-]?\d+)")
_QUOTED_LINE = re.compile(r'"((?:[^"]|"")+)"(?:\s+(\S.*))?')


class Row(NamedTuple):
    """What a line says of an image."""

    line: int  # where it begins, from 1 on
    text: str  # the line
    path: str  # bytes that are no UTF-8 as os.fsdecode has them
    label: str | None  # None where there is no place for one


class ImageList(NamedTuple):
    """A list, taken apart."""

    rows: Iterator[Row]  # as they are read: all lines of a long list would be large
    unused: list[str]  # columns of a table that are neither path nor label


def read_image_list(data: bytes, root: str) -> ImageList:
    """Take a list apart; blank lines and those that begin with ``#`` are skipped.

    Args:
        root: folder that paths are relative to: a line that is a file's name there is a path.

    Raises, also while the rows are read:
        ValueError: it is no text, or a line is not understood; the message names the line.
    """
    text = _text_of(data)
    lines = _Lines(root)
    first = next(lines.of(text), None)
    if first is None:
        raise ValueError("lists no image")
    delimiter = lines.delimiter(first)
    return lines.rows(text) if delimiter is None else _Table(lines, delimiter).rows(text)


def problem(line: int, text: str, what: str) -> ValueError:
    """An error that quotes the line."""
    return ValueError(f"line {line}: {shown(text)} {what}")


def shown(text: str) -> str:
    """What was written, as one line of a message that is not too long."""
    plain = repr(os.fsencode(text).decode("utf-8", "backslashreplace"))
    return plain if len(plain) <= 120 else f"{plain[:100]}..."


def _text_of(data: bytes) -> str:
    if data.startswith(b"\x1f\x8b"):
        raise ValueError("is packed by gzip; unpack it first")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ValueError(f"is no text ({error.reason})") from error
    if b"\0" in data:
        raise ValueError("is no text: a list is lines of path,label")
    return os.fsdecode(data.removeprefix(codecs.BOM_UTF8))


class _Lines:
    """Lines of ``path`` or ``path label``."""

    def __init__(self, root: str):
        self.root = root

    def of(self, text: str) -> Iterator[tuple[int, str]]:
        """Lines that are neither blank nor comments, with their numbers."""
        for number, line in enumerate(io.StringIO(text, newline=None), start=1):
            stripped = line.strip()
            if len(stripped) > LONGEST_LINE:
                raise problem(number, stripped, "is longer than a path may be")
            if stripped and not self.is_comment(stripped):
                yield number, stripped

    def is_comment(self, text: str) -> bool:
        return text.startswith("#") and not (_LABELLED_LINE.match(text) or self.is_there(text))

    def is_there(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self.root, path))

    def delimiter(self, first: tuple[int, str]) -> str | None:
        """What stands between the columns; None for lines."""
        number, line = first
        if self.is_there(line):
            return None
        for delimiter in DELIMITERS:
            fields = next(csv.reader([line], delimiter=delimiter))
            if len(fields) < 2:
                continue
            path, *others = (field.strip() for field in fields)
            if is_header(fields) or (is_image(path) and not any(map(is_image, others))):
                return delimiter
            if len(fields) == 2 and not _NAMES_AN_IMAGE.search(line):
                return delimiter
            if not is_image(path) and self.is_there(others[-1]):
                raise problem(
                    number, line, "has the path last: it comes first, or a first line names the "
                    "columns: label,path",
                )  # fmt: skip
        return None

    def rows(self, text: str) -> ImageList:
        lines = self.of(text)
        number, first = next(lines)
        columns = first.lower().split()
        is_header = {*columns} <= {*PATH_COLUMNS, *LABEL_COLUMNS} and not self.is_there(first)
        if is_header and (columns[0] in LABEL_COLUMNS or len(columns) > 2):
            raise problem(number, first, "names columns: put commas between them")
        named = iter([] if is_header else [(number, first)])
        return ImageList((self._row(*line) for line in chain(named, lines)), [])

    def _row(self, number: int, line: str) -> Row:
        quoted = _QUOTED_LINE.fullmatch(line)
        if quoted:
            return Row(number, line, quoted[1].replace('""', '"'), quoted[2])
        if is_image(line):
            return Row(number, line, line, None)
        match = _LABELLED_LINE.fullmatch(line) or _NUMBERED_LINE.fullmatch(line)
        return Row(number, line, match[1], match[2]) if match else Row(number, line, line, None)


class _Table:
    """Columns between ``delimiter``."""

    def __init__(self, lines: _Lines, delimiter: str):
        self.lines, self.delimiter = lines, delimiter
        self.first_line, self.width, self.path, self.label = 0, 0, 0, -1

    def rows(self, text: str) -> ImageList:
        records = self._records(text)
        self.first_line, first = next(records, (0, []))
        self.width, unused = len(first), []
        if is_header(first):
            named = [field.strip().lower() for field in first]
            self.path, self.label = _column(named, PATH_COLUMNS), _column(named, LABEL_COLUMNS)
            unused = [name for i, name in enumerate(first) if i not in (self.path, self.label)]
        elif len(first) > 2:
            what = f"has {len(first)} columns; a first line has to name them, such as path,label"
            raise problem(self.first_line, self.delimiter.join(first), what)
        elif first:
            self.label = len(first) - 1 or -1
            records = chain([(self.first_line, first)], records)
        rows = (self._row(line, record) for line, record in records)
        return ImageList(self._checked(rows), [name.strip() or "one of no name" for name in unused])

    def _records(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Records that are neither blank nor comments, with the numbers of their first lines."""
        file = io.StringIO(text, newline="")
        reader, start = csv.reader(file, delimiter=self.delimiter, strict=True), 1
        try:
            for record in reader:
                line, start = start, reader.line_num + 1
                if any(map(str.strip, record)) and not self.lines.is_comment(record[0]):
                    yield line, record
        except csv.Error as error:
            raise ValueError(
                f"line {start}: is no line of a table ({error}); a quote that is opened has to be "
                "closed, and one inside it doubled"
            ) from error

    def _checked(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Refuse a first row that holds names of columns nobody knows."""
        first = next(rows, None)
        if first is None:
            return
        second = next(rows, first)
        is_better = is_image(second.path) or self.lines.is_there(second.path)
        if is_better and not (is_image(first.path) or self.lines.is_there(first.path)):
            raise problem(first.line, first.text, "is no image; to name columns: path,label")
        yield first
        if second is not first:
            yield second
        yield from rows

    def _row(self, line: int, record: Sequence[str]) -> Row:
        text = self.delimiter.join(record)
        if len(record) != self.width:
            what = f"has {len(record)} columns, line {self.first_line} has {self.width}"
            what += f"; a name with {self.delimiter!r} in it has to be in quotes"
            raise problem(line, text, what)
        name = record[self.path]
        if name != name.strip() and not self.lines.is_there(name):
            name = name.strip()
        if not name:
            raise problem(line, text, "names no image")
        return Row(line, text, name, record[self.label].strip() if self.label >= 0 else None)


def is_image(path: str) -> bool:
    """Whether a path ends as those of images do."""
    return path.lower().endswith(_ENDINGS)


def is_header(fields: Sequence[str]) -> bool:
    """Whether they are names of columns, one of them the path's."""
    return any(field.strip().lower() in PATH_COLUMNS for field in fields)


def _column(named: Sequence[str], names: Sequence[str]) -> int:
    """Where the first of some names stands, -1 for nowhere."""
    return next((named.index(name) for name in names if name in named), -1)
