"""The index of a folder of images, which is kept between runs."""

import hashlib
import json
import logging
import os
import tempfile
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.sets.file_table import Names
from ssl_platform.data.sets.folder_scan import EXTENSIONS, LITTER, FolderIndex, scan

logger = logging.getLogger(__name__)

WORTH_KEEPING = 10_000  # images; fewer are found in a few hundredths of a second
SETTLED = 2 * 10**9  # ns; the coarsest file systems give times to 2 s


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
        # a folder that is changing now could change again within the resolution of its time
        settled = index.modified.max() < started - SETTLED
        if len(index.names.sizes) >= WORTH_KEEPING and settled:
            _keep(index, path)
    return index


def _index_path(root: bytes) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    # another Pillow reads other endings; another version leaves out other folders
    known = b"\0".join((os.path.realpath(root), *EXTENSIONS, *sorted(LITTER)))
    key = hashlib.blake2b(known, digest_size=16).hexdigest()
    return Path(base) / "ssl_platform" / "folders-2" / f"{key}"  # 2: of this format


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
        path.unlink()  # so that only the first rank reports it
    return None


# An index in a file: a checksum and the length of each array, 8 bytes each, then the arrays.
# Those of large items come first, so that all of them are aligned.
ARRAYS = ("<i8", "<i8", "<u2", "u1", "u1", "u1")  # modified, counts, sizes, text, folders, skipped
HEADER = np.dtype("<i8")


def _write(index: FolderIndex, file: IO[bytes]) -> None:
    joined = np.frombuffer(b"\0".join(index.folders), np.uint8)
    skipped = np.frombuffer(json.dumps(index.skipped).encode(), np.uint8)
    values = (index.modified, index.counts, index.names.sizes, index.names.text, joined, skipped)
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
    modified, counts, sizes, text, joined, skipped = arrays
    folders = joined.tobytes().split(b"\0")
    return FolderIndex(folders, modified, counts, Names(text, sizes), json.loads(skipped.tobytes()))


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
