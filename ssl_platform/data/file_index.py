"""Which image files there are: tables of paths without an object per file, and the index of a
folder, which is kept between runs."""

import hashlib
import logging
import os
import tempfile
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ssl_platform.data.decode import printable

logger = logging.getLogger(__name__)

EXTENSIONS = (
    b".jpg", b".jpeg", b".png", b".ppm", b".bmp", b".pgm", b".tif", b".tiff", b".webp", b".gif",
)  # fmt: skip
LONGEST_EXTENSION = max(map(len, EXTENSIONS))
WORTH_KEEPING = 10_000  # images; fewer are found in a few hundredths of a second
SETTLED = 2 * 10**9  # ns; the coarsest file systems give times to 2 s


class Names(NamedTuple):
    """Many names without an object per name."""

    text: np.ndarray  # uint8, all names end to end
    sizes: np.ndarray  # (N,) uint16, bytes of each name

    @classmethod
    def pack(cls, names: Sequence[bytes]) -> "Names":
        sizes = np.fromiter(map(len, names), np.uint16, len(names))
        return cls(np.frombuffer(b"".join(names), np.uint8), sizes)

    @classmethod
    def join(cls, parts: Iterable["Names"]) -> "Names":
        texts, sizes = zip(*parts, strict=True)
        return cls(np.concatenate(texts), np.concatenate(sizes))


class FileTable:
    """Paths of many files without an object per file.

    Reference counts of Python objects are written on every access, and so would copy the memory
    that forked workers share. 1.28 million paths take about 30 MiB here, once for all workers.

    Args:
        folders: where the files lie: those of one folder are consecutive, in the order given.
        counts: number of files of each folder.
        names: of all files, relative to their folder.
    """

    def __init__(self, folders: Sequence[bytes], counts: Sequence[int] | np.ndarray, names: Names):
        self._folders = list(folders)
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        self._text = names.text
        ends = np.cumsum(names.sizes, dtype=np.int64)
        self._ends = ends.astype(np.uint32) if len(self._text) < 2**32 else ends

    def __len__(self) -> int:
        return len(self._ends)

    def digest(self) -> bytes:
        """Of all names and their order, without the folder that all lie in."""
        root = os.path.commonpath(self._folders) if self._folders else b""
        digest = hashlib.blake2b(self._text.data, digest_size=16)
        digest.update(self._ends.astype("<u8").tobytes())
        digest.update(self._starts.astype("<i8").tobytes())
        digest.update(b"\0".join(os.path.relpath(folder, root) for folder in self._folders))
        return digest.digest()

    def __getitem__(self, index: int) -> bytes:
        """The path of file ``index``."""
        folder = self._folders[int(np.searchsorted(self._starts, index, side="right")) - 1]
        start = int(self._ends[index - 1]) if index else 0
        return os.path.join(folder, self._text[start : int(self._ends[index])].tobytes())


class FolderIndex(NamedTuple):
    """The images under a folder, at any depth; folders and the names in each are sorted."""

    folders: list[bytes]  # every folder, relative to the root, which is b"" and comes first
    modified: np.ndarray  # (F,) int64, when each folder's entries last changed, ns
    counts: np.ndarray  # (F,) int64, images that lie directly in it
    names: Names  # of the images


def folder_index(root: bytes) -> FolderIndex:
    """What `scan` finds, from the index of an earlier run where no folder has changed since.

    An index is kept for large sets, in ``$XDG_CACHE_HOME/ssl_platform`` (``~/.cache/ssl_platform``)
    under a name made of the root's path. It counts only if each of its folders has the time of
    modification that it had: a file that comes, goes or is renamed changes that of its folder. A
    damaged or outdated index is replaced.

    Raises:
        OSError: a folder cannot be read.
    """
    path = _index_path(root)
    index = _kept(path, root)
    if index is None:
        started = time.time_ns()
        index = scan(root)
        # what is changing now could change again without another time of modification
        settled = index.modified.max() < started - SETTLED
        if len(index.names.sizes) >= WORTH_KEEPING and settled:
            _keep(index, path)
    return index


def scan(root: bytes) -> FolderIndex:
    """Look through a folder; hidden files and folders are skipped, links to folders followed.

    Raises:
        OSError: a folder cannot be read.
    """
    found = sorted(_walk(root), key=lambda folder: folder.parts)
    return FolderIndex(
        folders=[b"/".join(folder.parts) for folder in found],
        modified=np.array([folder.modified for folder in found], dtype=np.int64),
        counts=np.array([len(folder.names.sizes) for folder in found], dtype=np.int64),
        names=Names.join(folder.names for folder in found),
    )


class _Folder(NamedTuple):
    parts: tuple[bytes, ...]  # below the root
    modified: int
    names: Names


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
        with os.scandir(folder) as found:
            entries = list(found)
        names = [entry.name for entry in entries if entry.is_file()]
        if len(names) < len(entries):
            for entry in entries:
                if entry.is_dir():
                    if not entry.name.startswith(b"."):
                        pending.append(((*parts, entry.name), ancestors | {identity}))
                # A dangling link counts as an image, so that it is reported and not passed over.
                elif entry.is_symlink() and not entry.is_file():
                    names.append(entry.name)
        # Names end in few ways. Where all are those of images, no name is looked at by itself.
        if not all(map(_ends_an_image, {name[-LONGEST_EXTENSION:] for name in names})):
            names = [name for name in names if _ends_an_image(name[-LONGEST_EXTENSION:])]
        names.sort()
        # hidden files; looking at each name would cost a twentieth of the whole scan
        del names[bisect_left(names, b".") : bisect_left(names, b"/")]
        yield _Folder(parts, status.st_mtime_ns, Names.pack(names))


@cache  # names end in few ways
def _ends_an_image(end: bytes) -> bool:
    return end.lower().endswith(EXTENSIONS)


def _index_path(root: bytes) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    key = hashlib.blake2b(os.path.realpath(root), digest_size=16).hexdigest()
    return Path(base) / "ssl_platform" / "folders-1" / f"{key}"  # 1: of this format


def _kept(path: Path, root: bytes) -> FolderIndex | None:
    """The index of an earlier run, if there is one that still holds."""
    try:
        index = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a file may be damaged in any way
        logger.warning("%s is damaged and made anew: %s", path, error)
    else:
        if _modified(root, index.folders) == index.modified.tolist():
            return index
        logger.warning("%s has changed since an earlier run and is read anew", printable(root))
    with suppress(OSError):
        path.unlink()  # so that only the first rank says so
    return None


# An index in a file: a checksum and the length of each array, 8 bytes each, then the arrays.
# Those of large items come first, so that all of them are aligned.
ARRAYS = ("<i8", "<i8", "<u2", "u1", "u1")  # modified, counts, sizes, text, folders
HEADER = np.dtype("<i8")


def _write(index: FolderIndex, file: IO[bytes]) -> None:
    joined = np.frombuffer(b"\0".join(index.folders), np.uint8)
    values = (index.modified, index.counts, index.names.sizes, index.names.text, joined)
    arrays = [value.astype(kind) for value, kind in zip(values, ARRAYS, strict=True)]
    stored = np.array([len(array) for array in arrays], HEADER).tobytes() + b"".join(
        array.tobytes() for array in arrays
    )
    file.write(np.array(zlib.adler32(stored), HEADER).tobytes() + stored)


def _read(path: Path) -> FolderIndex:
    """Without a copy of what is in the file."""
    data = path.read_bytes()
    checksum, *lengths = np.frombuffer(data, HEADER, 1 + len(ARRAYS)).tolist()
    if zlib.adler32(memoryview(data)[HEADER.itemsize :]) != checksum:
        raise ValueError("its checksum is wrong")
    arrays, offset = [], HEADER.itemsize * (1 + len(ARRAYS))
    for kind, length in zip(ARRAYS, lengths, strict=True):
        arrays.append(np.frombuffer(data, kind, length, offset))
        offset += arrays[-1].nbytes
    modified, counts, sizes, text, joined = arrays
    return FolderIndex(joined.tobytes().split(b"\0"), modified, counts, Names(text, sizes))


def _modified(root: bytes, folders: Iterable[bytes]) -> list[int]:
    """When each folder was last modified, up to one that is not there any more."""
    times = []
    for folder in folders:
        try:
            times.append(os.stat(os.path.join(root, folder)).st_mtime_ns)
        except OSError:
            break
    return times


def _keep(index: FolderIndex, path: Path) -> None:
    """Write it whole or not at all, also when several ranks do so at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / path.name
            with written.open("wb") as file:
                _write(index, file)
            os.replace(written, path)
    except OSError as error:
        logger.info("the index of the images is not kept: %s", error)
