"""Fetch a file into the cache: whole or not at all, once, and checked ever after."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from filelock import FileLock

from ssl_platform.console import without_secrets
from ssl_platform.errors import CheckpointError
from ssl_platform.files import sha256_of, sync
from ssl_platform.zoo.raw import is_web_page
from ssl_platform.zoo.transfer import forget, receive

LONGEST_NAME = 200  # file systems take 255, and endings are added


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
    _split(url)
    parts, target = _split(address), cached(url)
    with _writing(address, target.parent):
        sha256 = sha256 or _recorded(target)
        if parts.scheme == "file":
            return _checked(address, _local(parts, address), sha256)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not target.is_file():  # another process may have been first
                    _download(address, target, sha256)
                    return target
    return _checked(address, target, sha256)


def cached(url: str) -> Path:
    """Where the cache keeps a file, whether it is there or not."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]  # without a login
    folders = [quote(unquote(part), safe=" ") for part in (host, *parts.path.split("/"))]
    name = [_short(part) for part in folders if part.strip(".")]
    if parts.query:
        query = quote(f"?{parts.query}", safe="")
        has_secret = without_secrets(f"?{parts.query}") != f"?{parts.query}"
        name[-1] = _short(name[-1] + (f"%3F{_digest(query)}" if has_secret else query))
    return cache_folder().joinpath(*name)


def _short(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """``ssl_platform`` in the place where torch keeps what it downloads."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or home).expanduser() / "ssl_platform"


def _file_name(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


def _split(address: str) -> SplitResult:
    """The parts of an address.

    Raises:
        CheckpointError: it is none, or of something else than a file that can be fetched.
    """
    shown = without_secrets(address)
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise CheckpointError(f"{shown}: not an address ({error})") from error
    if parts.scheme not in ("https", "http", "file"):
        raise CheckpointError(f"{shown}: cannot fetch from {parts.scheme}://; https, http or file")
    if parts.scheme == "file":
        if host not in (None, "localhost"):
            raise CheckpointError(f"{shown}: a file of another machine; write file:///folder/file")
    elif not host or not parts.path.strip("/") or not address.isprintable() or " " in address:
        raise CheckpointError(f"{shown}: not the address of a file; https://host/folder/file")
    return parts


def _local(parts: SplitResult, address: str) -> Path:
    path = Path(unquote(parts.path))
    if "\0" in str(path) or not path.is_file():
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
            f"{without_secrets(address)}: {path} has the sha256 {found}, expected is {sha256}: it "
            "is damaged or another file; remove it to fetch it again (and "
            f"{_record(path).name}, if you know why)"
        )
    return path


@contextmanager
def _writing(address: str, folder: Path) -> Iterator[None]:
    """Word what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{without_secrets(address)}: cannot be kept in {folder} ({error.strerror or error}); "
            "set TORCH_HOME to a folder that can be written"
        ) from error


def _download(address: str, target: Path, sha256: str | None) -> None:
    partial = target.with_name(f"{target.name}.partial")
    receive(address, partial)
    found = sha256_of(partial)
    wrong = _wrong(partial, target, found, sha256)
    if wrong is not None:
        forget(partial)
        raise CheckpointError(f"{without_secrets(address)}: {wrong}; nothing is kept")
    _record(target).write_text(f"{found}\n")  # first: a file without its record is not checked
    partial.replace(target)
    forget(partial)
    sync(target.parent)


def _wrong(partial: Path, target: Path, found: str, sha256: str | None) -> str | None:
    """Why what came is not the file, in words. It is opened: a server may cut it unseen."""
    if is_web_page(partial):
        return "what came is a web page, not a file of weights; it may need a login"
    if sha256 not in (None, found):
        earlier = f", which {_record(target)} keeps of an earlier fetch; if that is out of date, "
        earlier += "remove it"
        known = earlier if _recorded(target) == sha256 else ""
        return f"what came has the sha256 {found}, expected is {sha256}{known}"
    if sha256 is not None:
        return None
    from ssl_platform.zoo.files import read_content  # needs torch

    try:
        read_content(partial, mmap=True)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{partial}: ").removesuffix("; fetch it again")
        return f"what came is no whole checkpoint ({reason})"
    return None
