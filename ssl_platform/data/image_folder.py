"""Images in files: a folder of them, or a list."""

import os
from pathlib import Path

import numpy as np

from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decode import printable, read_image
from ssl_platform.data.file_index import EXTENSIONS, FileTable, Names, folder_index
from ssl_platform.data.pixels import Notes
from ssl_platform.registry import DATASETS

MAX_PATH_BYTES = 4096  # Linux
MAX_LABEL = 2**31 - 1

NUM_PROBES = 8


class ImageFiles(ImageDataset):
    """Any set that is a table of files; says where they are by its constructor alone."""

    path: str
    files: FileTable

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> np.ndarray:
        return self.read_noting(index, Notes())

    def read_noting(self, index: int, notes: Notes) -> np.ndarray:
        return read_image(self.files[index], self.pixels, notes)

    def describe(self, index: int) -> str:
        return printable(self.files[index])

    def fingerprint(self) -> str:
        return super().fingerprint() + self.files.digest().hex()

    def probe(self) -> None:
        tried = np.unique(np.linspace(0, len(self) - 1, NUM_PROBES).astype(np.int64))
        first = None
        for index in tried.tolist():
            try:
                self.read(index)
                return
            except UnreadableImage as error:
                first = first or error
        assert first is not None
        raise ValueError(
            f"path={self.path}: none of the {len(tried)} images tried can be read, "
            f"first {first.name}: {first.reason}"
        )


@DATASETS.register()
class ImageFolder(ImageFiles):
    """All images under a folder, at any depth; symbolic links to folders are followed.

    The class of an image is its first-level folder, numbered by sorted name as in torchvision.
    When an image lies directly in ``path``, the set is unlabelled. Hidden files and folders are
    skipped.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """

    def __init__(self, *, path: str):
        self.path = path
        root = os.fsencode(existing("path", path, directory=True))
        try:
            index = folder_index(root)
        except OSError as error:
            raise ValueError(
                f"path={path}: cannot look into {printable(os.fsencode(error.filename))}: "
                f"{error.strerror}"
            ) from error
        if not len(index.names.sizes):
            raise ValueError(
                f"path={path}: no image in this folder or below it (looked for "
                f"{', '.join(extension.decode() for extension in EXTENSIONS)})"
            )
        folders = [f for f, count in zip(index.folders, index.counts, strict=True) if count]
        counts = index.counts[index.counts > 0]
        self.files = FileTable([os.path.join(root, f) for f in folders], counts, index.names)
        self.labels = None
        if folders[0]:  # no image lies in the root itself
            classes = sorted({_first_level(f) for f in index.folders if f})
            number = {name: label for label, name in enumerate(classes)}
            self.classes = [printable(name) for name in classes]
            labels = np.array([number[_first_level(f)] for f in folders], dtype=np.int64)
            self.labels = np.repeat(labels, counts)


@DATASETS.register()
class ListFile(ImageFiles):
    """The images that a text file names, one a line: ``relative/path.jpg[ <label>]``.

    Either every line ends in a label (an integer from 0 on) or none does. Empty lines are skipped.

    Args:
        path: the text file.
        root: folder that the paths in it are relative to.
        allow_outside: whether they may lead out of ``root``, by ``..`` or from ``/`` on.

    Raises:
        ValueError: no such file or folder, one that may not be read, no image listed, or a line
            that fits neither form.
    """

    def __init__(self, *, path: str, root: str, allow_outside: bool = False):
        self.path = path
        try:
            lines = Path(existing("path", path, directory=False)).read_bytes().splitlines()
        except OSError as error:
            raise ValueError(f"path={path}: cannot be read: {error.strerror}") from error
        numbered = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
        if not numbered:
            raise ValueError(f"path={path}: lists no image")
        parsed = [_split_label(line) for _, line in numbered]
        labelled = parsed[0][1] is not None
        for (line_number, line), (name, label) in zip(numbered, parsed, strict=True):
            where = f"path={path}: line {line_number}: {printable(line[:MAX_PATH_BYTES])!r}"
            if len(name) > MAX_PATH_BYTES:
                raise ValueError(f"{where[:100]}... is longer than a path may be")
            if (label is not None) != labelled:
                has, first = ("no", "one") if labelled else ("a", "none")
                raise ValueError(f"{where} has {has} label, but line {numbered[0][0]} has {first}")
            if label is not None and not 0 <= label <= MAX_LABEL:
                raise ValueError(f"{where} has label {label}; labels count the classes from 0")
            if not allow_outside and _leads_out(name):
                raise ValueError(f"{where} leads out of root; to permit it set allow_outside")
        root_path = os.fsencode(existing("root", root, directory=True))
        self.files = FileTable([root_path], [len(parsed)], Names.pack([name for name, _ in parsed]))
        self.labels = np.array([label for _, label in parsed], dtype=np.int64) if labelled else None


def existing(option: str, path: str, *, directory: bool) -> str:
    """``path``, if it is there and of the right kind; ``option`` is what an error calls it."""
    kind = "directory" if directory else "file"
    if not os.path.exists(path):
        raise ValueError(f"{option}={path}: no such {kind} (working directory: {os.getcwd()})")
    if os.path.isdir(path) != directory:
        raise ValueError(f"{option}={path}: not a {kind}")
    return path


def _first_level(folder: bytes) -> bytes:
    return folder.partition(b"/")[0]


def _leads_out(name: bytes) -> bool:
    """Whether a relative path leaves the folder that it starts in; links are taken as they are."""
    normal = os.path.normpath(name)
    return os.path.isabs(normal) or normal.split(b"/")[0] == b".."


def _split_label(line: bytes) -> tuple[bytes, int | None]:
    name, _, last = line.rpartition(b" ")
    try:
        return (name.rstrip(), int(last)) if name else (line, None)
    except ValueError:
        return line, None
