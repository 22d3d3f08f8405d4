"""What is written about clusters: tables, folders of links and contact sheets.

All of it goes to one folder, which exists::

    clusters.csv, clusters.parquet    one row per image, in the order of the data set
    by_cluster/0/0017/                symbolic links to the images of cluster 17 of set 0
    sheets/0/0017.jpg                 the images of that cluster that are nearest to its prototype
    index.html                        shows the sheets, from cluster_page.py

A model may have several sets of prototypes, each with clusters of its own; "0" is the first set.
"""

import errno
import hashlib
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile, ZipFile


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; what was written there becomes ``path`` when nothing went wrong."""
    partial = path.with_name(f".partial_{path.name}")
    yield partial
    os.replace(partial, path)


# torch does not compress what it saves, and weights hardly can be; zip bombs reach a thousand
UNPACKED_TIMES, UNPACKED_BYTES = 16, 2**26
SMALL = 2**22  # bytes
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def sha256_of(path: Path) -> str:
    """Of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a directory."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_left(folder: Path) -> int | None:
    """How many more files its file system has room for; None where it does not tell."""
    found = os.statvfs(folder)
    return found.f_favail if found.f_files else None


def of_disk(error: BaseException | None) -> OSError | None:
    """The error of a full or read-only disk that another may have come of, as torch's own does."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in OF_DISK:
            return error
        error = error.__cause__ or error.__context__
    return None


def why_not_written(error: Exception, folder: Path, num_bytes: int) -> str:
    """Why ``num_bytes`` could not be written below ``folder``, with what there is and is not."""
    error = of_disk(error) or error
    number = error.errno if isinstance(error, OSError) else None
    told = os.strerror(number) if number is not None else str(error).partition("\n")[0]
    while not folder.exists():
        folder = folder.parent
    if number == errno.ENOSPC and names_left(folder) == 0:
        return f"{told}: no inodes are free, which every file takes one of; remove some files"
    if number in (errno.EDQUOT, errno.EROFS):  # of which the free room says nothing
        return told
    if number == errno.EFBIG and (limit := resource.getrlimit(resource.RLIMIT_FSIZE)[0]) >= 0:
        return f"{told}: ulimit -f is {limit // 1024}, a checkpoint takes {in_mib(num_bytes)}"
    free = shutil.disk_usage(folder).free
    return f"{told}: it needs {in_mib(num_bytes)}, {in_mib(free)} are free"


def in_mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def unpacks_to_too_much(path: Path) -> str | None:
    """Why a zip archive is no file of torch, in words: it is much smaller than what is in it."""
    try:
        with ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # no archive, or one that its reader will refuse
    packed = path.stat().st_size
    if unpacked <= UNPACKED_TIMES * packed + UNPACKED_BYTES:
        return None
    return (
        f"{packed:,} bytes that unpack to {unpacked:,}, more than {UNPACKED_TIMES} times as many; "
        "torch does not compress what it saves"
    )


def read_small(path: Path) -> str:
    """The text of a file that is known to be small.

    Raises:
        ValueError: it is large, no text, or no file, which would be waited for.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with path.open("rb") as file:
        data = file.read(SMALL + 1)
    if len(data) > SMALL:
        raise ValueError(f"larger than {SMALL:,} bytes")
    return data.decode()
