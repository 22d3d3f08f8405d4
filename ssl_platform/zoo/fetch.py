"""Fetch a file into the cache: whole or not at all, once, and checked ever after."""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock
from tqdm import tqdm

from ssl_platform.disk import sha256_of, sync_folder
from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.raw import is_web_page

TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 20


def fetch(url: str, sha256: str | None = None, *, mirror: str | None = None) -> Path:
    """The file at ``url``: in place if it is local, else in the cache, fetched if it is not there.

    Its digest is recorded beside it when it is fetched, and compared at every later call. A broken
    download goes on where it broke off. Processes that want the same file wait for the first.

    Args:
        url: ``https://``, ``http://`` or ``file://``.
        sha256: of the file, hexadecimal; None for that of the record, if there is one.
        mirror: base address that has a file of the same name, asked instead of ``url``.

    Raises:
        CheckpointError: the file cannot be had, cannot be kept, or is another one; the message
            begins with the address. No part of a file is left under the file's name.
    """
    address = f"{mirror.rstrip('/')}/{_file_name(url)}" if mirror else url
    target = cached(url)
    sha256 = sha256 or _recorded(target)
    scheme = urlsplit(address).scheme
    if scheme not in ("https", "http", "file"):
        raise CheckpointError(f"{address}: cannot fetch from {scheme}://; https, http or file")
    if scheme == "file":
        return _checked(address, _local(address), sha256)
    if target.is_file():
        return _checked(address, target, sha256)
    with _writing(address, target.parent), FileLock(f"{target}.lock"):
        if not target.is_file():  # another process may have been first
            _download(address, target, sha256)
    return target


def cached(url: str) -> Path:
    """Where the cache keeps a file, whether it is there or not."""
    parts = urlsplit(url)
    folders = [quote(unquote(part), safe=" ") for part in (parts.netloc, *parts.path.split("/"))]
    name = [part for part in folders if part.strip(".")]
    if parts.query:
        name[-1] += quote(f"?{parts.query}", safe="")
    return cache_folder().joinpath(*name)


def cache_folder() -> Path:
    """``ssl_platform`` in the place where torch keeps what it downloads."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or home).expanduser() / "ssl_platform"


def _file_name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _local(address: str) -> Path:
    path = Path(unquote(urlsplit(address).path))
    if not path.is_file():
        raise CheckpointError(f"{address}: no such file")
    return path


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recorded(target: Path) -> str | None:
    record = _record(target)
    return record.read_text().strip() or None if record.is_file() else None


def _checked(address: str, path: Path, sha256: str | None) -> Path:
    found = sha256_of(path)
    if sha256 not in (None, found):
        raise CheckpointError(
            f"{address}: {path} has the sha256 {found}, expected is {sha256}: it is damaged or "
            f"another file; remove it to fetch it again (and {_record(path).name}, if you know why)"
        )
    return path


@contextmanager
def _writing(address: str, folder: Path) -> Iterator[None]:
    """Word what the file system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise CheckpointError(
            f"{address}: cannot be kept in {folder} ({error.strerror or error}); set TORCH_HOME to "
            "a folder that can be written"
        ) from error


def _download(address: str, target: Path, sha256: str | None) -> None:
    partial = target.with_name(f"{target.name}.partial")
    _receive_all(address, partial)
    found = sha256_of(partial)
    wrong = None
    if is_web_page(partial):
        wrong = "what came is a web page, not a file of weights"
    elif sha256 not in (None, found):
        wrong = f"what came has the sha256 {found}, expected is {sha256}"
        if _recorded(target) == sha256:
            wrong += f", which {_record(target)} keeps of an earlier fetch"
    if wrong:
        partial.unlink()
        raise CheckpointError(f"{address}: {wrong}; nothing is kept")
    _record(target).write_text(f"{found}\n")  # first: a file without its record is not checked
    partial.replace(target)
    _tag(partial).unlink()
    sync_folder(target.parent)


def _receive_all(address: str, partial: Path) -> None:
    """Fill ``partial``, reconnecting as long as each connection brings something."""
    size = _size(partial)
    while not _receive(address, partial):
        if _size(partial) <= size:
            raise CheckpointError(
                f"{address}: the connection breaks off after {_size(partial)} bytes; what has come "
                "is kept, start it again to go on"
            )
        size = _size(partial)


def _receive(address: str, partial: Path) -> bool:
    """Append what one connection brings; returns whether the file is whole."""
    with _connect(address, partial) as response:
        resumed = response.status == 206
        start = _size(partial) if resumed else 0
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            partial.unlink()
            raise CheckpointError(f"{address}: answers with another part than was asked for")
        total = None if response.length is None else start + response.length
        _check_room(address, partial.parent, response.length or 0)
        progress = tqdm(
            desc=_file_name(address), initial=start, total=total, unit="B", unit_scale=True,
            disable=None,
        )  # fmt: skip
        with partial.open("ab" if resumed else "wb") as file, progress:
            _tag(partial).write_text(_validator(response))  # only now is the part of this file
            ended = _append(response, file, progress)
            file.flush()
            os.fsync(file.fileno())
    return ended and total in (None, _size(partial))


def _append(response: HTTPResponse, file: BinaryIO, progress: tqdm) -> bool:
    """Write what comes; returns whether the connection ended in good order."""
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, HTTPException):  # of the connection, not of the disk
            return False
        if not block:
            return True
        file.write(block)
        progress.update(len(block))


def _connect(address: str, partial: Path) -> HTTPResponse:
    try:
        request = urllib.request.Request(address, headers=_headers(partial))
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # there is no rest: the part is whole, or of another file
            partial.unlink()
            return _connect(address, partial)
        raise CheckpointError(f"{address}: {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise CheckpointError(f"{address}: cannot be reached ({reason})") from error


def _headers(partial: Path) -> dict[str, str]:
    """Ask for the rest, if the file is still the one that the part is of."""
    validator = _tag(partial).read_text() if _tag(partial).is_file() else ""
    if not (validator and _size(partial)):
        return {}
    return {"Range": f"bytes={_size(partial)}-", "If-Range": validator}


def _validator(response: HTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _tag(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.tag")


def _check_room(address: str, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise CheckpointError(
            f"{address}: {size} bytes are to come, {folder} has room for {free}; set TORCH_HOME to "
            "a folder on another disk"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
