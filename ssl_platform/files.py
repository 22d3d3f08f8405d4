"""Files that are written whole or not at all, and what disks and archives allow."""

import errno
import hashlib
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zipfile import BadZipFile, ZipFile

# torch does not compress what it saves, and weights hardly can be; zip bombs reach a thousand
UNPACKED_TIMES, UNPACKED_BYTES = 16, 2**26
SMALL = 2**22  # bytes
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which takes its place once it is complete.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    partial = path.with_name(f".partial_{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # of a disk that is read-only
            partial.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def inodes_left(folder: Path) -> int | None:
    """How many more files its file system has room for; None where it does not tell."""
    status = os.statvfs(folder)
    return status.f_favail if status.f_files else None


def error_of_disk(error: BaseException | None) -> OSError | None:
    """The error of a full or read-only disk among the causes of another, as torch's own has."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in OF_DISK:
            return error
        error = error.__cause__ or error.__context__
    return None


def why_not_written(error: Exception, folder: Path, num_bytes: int) -> str:
    """Why ``num_bytes`` could not be written below ``folder``, and how much room there is."""
    error = error_of_disk(error) or error
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number is not None else str(error).partition("\n")[0]
    while not folder.exists():
        folder = folder.parent
    if number == errno.ENOSPC and inodes_left(folder) == 0:
        return f"{reason}: no inodes are free, which every file takes one of; remove some files"
    if number in (errno.EDQUOT, errno.EROFS):  # of which the free room says nothing
        return reason
    if number == errno.EFBIG and (limit := resource.getrlimit(resource.RLIMIT_FSIZE)[0]) >= 0:
        return f"{reason}: ulimit -f is {limit // 1024}, a checkpoint takes {in_mib(num_bytes)}"
    free = shutil.disk_usage(folder).free
    return f"{reason}: it needs {in_mib(num_bytes)}, {in_mib(free)} are free"


def in_mib(num_bytes: float) -> str:
    """A size for a message: ``1,234.5 MiB``."""
    return f"{num_bytes / 2**20:,.1f} MiB"


def unpacks_to_too_much(path: Path) -> str | None:
    """Why a zip archive is no file of torch: it unpacks to many times its size. None if it is."""
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


def reason(error: OSError) -> str:
    """The message of the system, without the path."""
    return error.strerror or str(error)
