"""Download a file into the cache, complete or not at all, and check its digest at every use."""

import hashlib
import os
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from filelock import FileLock

from ssl_platform.console import without_secrets
from ssl_platform.errors import CheckpointError
from ssl_platform.files import sha256_of, sync
from ssl_platform.zoo.file_kinds import is_web_page
from ssl_platform.zoo.transfer import forget, receive

LONGEST_NAME = 200  # file systems take 255, and endings are added


def fetch(url: str, sha256: str | None = None, *, mirror: str | None = None) -> Path:
    """The path of the file at ``url``: a local file itself, another one's copy in the cache.

    What is not in the cache is downloaded. Its digest is recorded beside it and compared at every
    later call. A broken download goes on where it broke off. Processes that want the same file
    wait for the first.

    Args:
        url: ``https://``, ``http://`` or ``file://``.
        sha256: of the file, hexadecimal; None for the recorded one, if there is any.
        mirror: address of a folder with a file of the same name, which is asked instead.

    Raises:
        CheckpointError: the file cannot be had, cannot be kept, or is another one; the message
            begins with the address. Nothing incomplete is left under the file's name.
    """
    address = f"{mirror.rstrip('/')}/{urlsplit(url).path.rpartition('/')[2]}" if mirror else url
    try:
        parts = _parts(address)
        target = cached(url)
        expected = sha256 or _recorded(target)
        if parts.scheme == "file":
            return _checked(_local(parts), expected)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not target.is_file():  # another process may have been first
                    return _download(address, target, expected)
        return _checked(target, expected)
    except (CheckpointError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"cannot be kept in {cached(url).parent} ({error.strerror or error}); "
            reason += "set TORCH_HOME to a folder that can be written"
        raise CheckpointError(f"{without_secrets(address)}: {reason}") from error


def cached(url: str) -> Path:
    """Where the cache keeps a file, whether it is there or not."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]  # without a login
    names = [quote(unquote(part), safe=" ") for part in (host, *parts.path.split("/"))]
    names = [name for name in names if name.strip(".")]
    if parts.query:
        query = f"?{parts.query}"
        has_secret = without_secrets(query) != query
        names[-1] += quote(f"?{_digest(query)}" if has_secret else query, safe="")
    short = (n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME // 2] + _digest(n) for n in names)
    return cache_folder().joinpath(*short)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """``ssl_platform`` in the place where torch keeps what it downloads."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or home).expanduser() / "ssl_platform"


def _parts(address: str) -> SplitResult:
    """The parts of an address that can be fetched."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise CheckpointError(f"not an address ({error})") from error
    if parts.scheme not in ("https", "http", "file"):
        raise CheckpointError(f"cannot fetch from {parts.scheme}://; https, http or file")
    if parts.scheme == "file":
        if host not in (None, "localhost"):
            raise CheckpointError("a file of another machine; write file:///folder/file")
    elif not host or not parts.path.strip("/") or not address.isprintable() or " " in address:
        raise CheckpointError("not the address of a file; https://host/folder/file")
    return parts


def _local(parts: SplitResult) -> Path:
    path = Path(unquote(parts.path))
    if "\0" in str(path) or not path.is_file():
        raise CheckpointError("no such file")
    return path


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _recorded(target: Path) -> str | None:
    record = _record(target)
    return record.read_text().strip() or None if record.is_file() else None


def _checked(path: Path, expected: str | None) -> Path:
    digest = sha256_of(path)
    if expected not in (None, digest):
        raise CheckpointError(
            f"{path} has the sha256 {digest}, expected is {expected}: it is damaged or another "
            f"file; remove it to fetch it again (and {_record(path).name}, if you know why)"
        )
    return path


def _download(address: str, target: Path, expected: str | None) -> Path:
    partial = target.with_name(f"{target.name}.partial")
    receive(address, partial)
    digest = sha256_of(partial)
    problem = _problem(partial, target, digest, expected)
    if problem is not None:
        forget(partial)
        raise CheckpointError(f"what came {problem}; nothing is kept")
    _record(target).write_text(f"{digest}\n")  # first: a file without its record is not checked
    partial.replace(target)
    forget(partial)
    sync(target.parent)
    return target


def _problem(partial: Path, target: Path, digest: str, expected: str | None) -> str | None:
    """Why what came is not the file."""
    if is_web_page(partial):
        return "is a web page, not a file of weights; it may need a login"
    if expected not in (None, digest):
        problem = f"has the sha256 {digest}, expected is {expected}"
        if _recorded(target) != expected:
            return problem
        earlier = "of an earlier fetch; if that is out of date, remove it"
        return f"{problem}, which {_record(target)} keeps {earlier}"
    if expected is not None:
        return None
    from ssl_platform.zoo.files import read_content  # needs torch

    try:  # without a digest it is opened: a server may cut a file and not say so
        read_content(partial, mmap=True)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{partial}: ").removesuffix("; fetch it again")
        return f"is no whole checkpoint ({reason})"
    return None
