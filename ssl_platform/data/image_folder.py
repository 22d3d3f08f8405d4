"""Images in files: a folder of them, or a list."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decode import printable, read_image
from ssl_platform.registry import DATASETS

EXTENSIONS = (
    b".jpg", b".jpeg", b".png", b".ppm", b".bmp", b".pgm", b".tif", b".tiff", b".webp", b".gif",
)  # fmt: skip
NUM_PROBES = 8


class FileTable:
    """Paths of many files without an object per file.

    Reference counts of Python objects are written on every access, and so would copy the memory
    that forked workers share. 1.28 million paths take about 30 MiB here, once for all workers.

    Args:
        folders: where the files lie: those of one folder are consecutive, in the order given.
        names: for each folder, its files' names relative to it.
    """

    def __init__(self, folders: Sequence[bytes], names: Sequence[Sequence[bytes]]):
        self._folders = list(folders)
        self._starts = np.cumsum([0, *map(len, names)], dtype=np.int64)
        self._blob = b"".join(name for group in names for name in group)
        sizes = np.fromiter(
            (len(name) for group in names for name in group), np.int64, self._starts[-1]
        )
        ends = np.cumsum(sizes)
        self._ends = ends.astype(np.uint32) if len(self._blob) < 2**32 else ends

    def __len__(self) -> int:
        return len(self._ends)

    def digest(self) -> bytes:
        """Of all names and their order, without the folder that all lie in."""
        root = os.path.commonpath(self._folders) if self._folders else b""
        digest = hashlib.blake2b(self._blob, digest_size=16)
        digest.update(self._ends.astype("<u8").tobytes())
        digest.update(self._starts.astype("<i8").tobytes())
        digest.update(b"\0".join(os.path.relpath(folder, root) for folder in self._folders))
        return digest.digest()

    def __getitem__(self, index: int) -> bytes:
        """The path of file ``index``."""
        folder = self._folders[int(np.searchsorted(self._starts, index, side="right")) - 1]
        start = int(self._ends[index - 1]) if index else 0
        return os.path.join(folder, self._blob[start : int(self._ends[index])])


class ImageFiles(ImageDataset):
    """Any set that is a table of files; says where they are by its constructor alone."""

    path: str
    files: FileTable

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> np.ndarray:
        return read_image(self.files[index])

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

    The class of a image is its first-level folder, numbered by sorted name as in torchvision.
    When a image lies directly in ``path``, the set is unlabelled. Hidden files and folders are
    skipped.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """

    def __init__(self, *, path: str):
        self.path = path
        root = os.fsencode(existing("path", path, directory=True))
        try:
            found = list(_walk(root))
        except OSError as error:
            raise ValueError(
                f"path={path}: cannot look into {printable(os.fsencode(error.filename))}: "
                f"{error.strerror}"
            ) from error
        with_files = sorted((f for f in found if f.names), key=lambda f: f.parts)
        if not with_files:
            raise ValueError(
                f"path={path}: no image in this folder or below it (looked for "
                f"{', '.join(extension.decode() for extension in EXTENSIONS)})"
            )
        self.files = FileTable(
            [os.path.join(root, *f.parts) for f in with_files], [f.names for f in with_files]
        )
        self.labels = None
        if with_files[0].parts:
            classes = sorted({f.parts[0] for f in found if f.parts})
            number = {name: label for label, name in enumerate(classes)}
            self.classes = [printable(name) for name in classes]
            self.labels = np.repeat(
                np.array([number[f.parts[0]] for f in with_files], dtype=np.int64),
                [len(f.names) for f in with_files],
            )


@DATASETS.register()
class ListFile(ImageFiles):
    """The images that a text file names, one a line: ``relative/path.jpg[ <label>]``.

    Either every line ends in a label (an integer from 0 on) or none does. Empty lines are skipped.

    Args:
        path: the text file.
        root: folder that the paths in it are relative to.
        allow_outside: whether they may lead out of ``root``, by ``..`` or from ``/`` on.

    Raises:
        ValueError: no such file or folder, no image listed, or a line that fits neither form.
    """

    def __init__(self, *, path: str, root: str, allow_outside: bool = False):
        self.path = path
        lines = Path(existing("path", path, directory=False)).read_bytes().splitlines()
        numbered = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
        if not numbered:
            raise ValueError(f"path={path}: lists no image")
        parsed = [_split_label(line) for _, line in numbered]
        labelled = parsed[0][1] is not None
        for (line_number, line), (name, label) in zip(numbered, parsed, strict=True):
            where = f"path={path}: line {line_number}: {printable(line)!r}"
            if (label is not None) != labelled:
                has, first = ("no", "one") if labelled else ("a", "none")
                raise ValueError(f"{where} has {has} label, but line {numbered[0][0]} has {first}")
            if label is not None and label < 0:
                raise ValueError(f"{where} has a negative label; labels count from 0")
            if not allow_outside and _leads_out(name):
                raise ValueError(f"{where} leads out of root; to permit it set allow_outside")
        root_path = os.fsencode(existing("root", root, directory=True))
        self.files = FileTable([root_path], [[name for name, _ in parsed]])
        self.labels = np.array([label for _, label in parsed], dtype=np.int64) if labelled else None


def existing(option: str, path: str, *, directory: bool) -> str:
    """``path``, if it is there and of the right kind; ``option`` is what an error calls it."""
    kind = "directory" if directory else "file"
    if not os.path.exists(path):
        raise ValueError(f"{option}={path}: no such {kind} (working directory: {os.getcwd()})")
    if os.path.isdir(path) != directory:
        raise ValueError(f"{option}={path}: not a {kind}")
    return path


class _Folder(NamedTuple):
    parts: tuple[bytes, ...]  # below the root
    names: list[bytes]  # of the images in it, sorted


def _walk(root: bytes) -> Iterator[_Folder]:
    """Every folder under ``root``, itself included, without the rounds of a symbolic link."""
    pending: list[tuple[tuple[bytes, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while pending:
        parts, ancestors = pending.pop()
        folder = os.path.join(root, *parts)
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            continue
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(b"."):
                    continue
                if entry.is_dir():
                    pending.append(((*parts, name), ancestors | {identity}))
                # A dangling link counts as a image, so that it is reported and not passed over.
                elif name.lower().endswith(EXTENSIONS) and (entry.is_file() or entry.is_symlink()):
                    names.append(name)
        yield _Folder(parts, sorted(names))


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
