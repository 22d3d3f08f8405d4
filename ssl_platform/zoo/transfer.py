"""A file from an HTTP server that may break off, go on for ever, or send another one.

What is taken up where it broke off: a file whose server says that it is still the same. What ends
it: silence, a trickle, a size.
"""

import os
import re
import shutil
import urllib.error
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from ssl_platform.console import without_secrets
from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.connections import PACE_SECONDS, SLOWEST, Pace, open_address

BLOCK = 1 << 20
MOST_BYTES = 2**35  # that a server may announce
MOST_UNANNOUNCED = 2**32  # that come from one that does not say how many
MOST_CONNECTIONS = 100
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def receive(address: str, partial: Path) -> None:
    """Fill a file with what is at an address, going on where an earlier try broke off.

    Args:
        address: ``http://`` or ``https://``; a user and a password in it are for its host alone.
        partial: what has come is kept in it, and beside it, as ``.tag``, whose part it is.

    Raises:
        CheckpointError: it cannot be had; the message begins with the address.
        OSError: it cannot be kept.
    """
    for _ in range(MOST_CONNECTIONS):
        size = _size(partial)
        if _receive_some(address, partial):
            return
        if _size(partial) <= size:
            break
    raise CheckpointError(
        f"{without_secrets(address)}: the connection breaks off after {_size(partial)} bytes; what "
        "has come is kept, start it again to go on"
    )


def forget(partial: Path) -> None:
    """Remove what has come of a file."""
    partial.unlink(missing_ok=True)
    _tag(partial).unlink(missing_ok=True)


def _receive_some(address: str, partial: Path) -> bool:
    """Append what one connection brings; returns whether the file is whole."""
    shown = without_secrets(address)
    with Pace() as pace:
        response, start = _connect(address, partial, pace)
        with response:
            total = _total(response, start)
            _check_size(shown, partial, total, start)
            progress = tqdm(
                desc=urlsplit(shown).path.rpartition("/")[2], initial=start, total=total, unit="B",
                unit_scale=True, disable=None,
            )  # fmt: skip
            with partial.open("ab" if start else "wb") as file, progress:
                _tag(partial).write_text(_validator(response))  # only now is the part of this file
                limit = MOST_UNANNOUNCED if total is None else total
                ended = _append(response, file, limit - start, pace, progress)
                file.flush()
                os.fsync(file.fileno())
        if pace.is_too_slow:
            raise CheckpointError(
                f"{shown}: less than {SLOWEST} bytes a second come for {PACE_SECONDS} seconds; what"
                " has come is kept, start it again to go on"
            )
    if total is None and _size(partial) >= MOST_UNANNOUNCED:
        forget(partial)
        raise CheckpointError(
            f"{shown}: sends more than {MOST_UNANNOUNCED:,} bytes without saying how many will "
            "come; nothing is kept; fetch it yourself and name the file"
        )
    return ended and total in (None, _size(partial))


def _append(
    response: HTTPResponse, file: BinaryIO, limit: int, pace: "Pace", progress: tqdm
) -> bool:
    """Write what comes, at most ``limit`` bytes; returns whether it ended in good order."""
    while limit > 0:
        try:
            block = response.read1(min(BLOCK, limit))
        except (OSError, ValueError, HTTPException):  # of the connection, not of the disk
            return False
        if not block:
            break
        file.write(block)
        limit -= len(block)
        pace.num_bytes += len(block)
        progress.update(len(block))
    return True


# ---- what a server answers


def _connect(address: str, partial: Path, pace: "Pace") -> tuple[HTTPResponse, int]:
    """The answer, and the position in the file that it begins at."""
    shown, wanted, tag = without_secrets(address), _size(partial), _known_tag(partial)
    headers = {"Range": f"bytes={wanted}-", "If-Range": tag} if wanted and tag else {}
    try:
        response = open_address(address, headers, pace)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and headers:  # there is no rest: it is whole, or of another file
            forget(partial)
            return _connect(address, partial, pace)
        hint = "; it needs a login" if error.code in (401, 403) else ""
        raise CheckpointError(f"{shown}: {error.code} {error.reason}{hint}") from error
    except (OSError, ValueError, HTTPException) as error:
        if pace.is_too_slow:
            reason: Any = f"no answer in {PACE_SECONDS} seconds"
        else:
            reason = getattr(error, "reason", error) or type(error).__name__
        raise CheckpointError(f"{shown}: cannot be reached ({reason})") from error
    try:
        return response, _start(shown, response, partial, wanted if headers else None, tag)
    except _AnotherFileError:
        response.close()
        forget(partial)
        return _connect(address, partial, pace)
    except CheckpointError:
        response.close()
        raise


class _AnotherFileError(Exception):
    """The part that is here is of another file than the one that is sent."""


def _start(shown: str, response: HTTPResponse, partial: Path, wanted: int | None, tag: str) -> int:
    """Where the answer begins: at ``wanted``, if that was asked for and given, or at 0."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise CheckpointError(
            f"{shown}: is sent in the encoding {encoding}, which was not asked for; fetch it "
            "yourself and name the file"
        )
    if response.status != 206:
        return 0
    given = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if wanted is None or given is None or int(given[1]) != wanted or not _is_whole(given):
        forget(partial)
        raise CheckpointError(f"{shown}: answers with another part than was asked for")
    # a date need not be repeated
    if response.headers.get("ETag", "" if tag.startswith('"') else tag) != tag:
        raise _AnotherFileError
    return wanted


def _is_whole(given: re.Match[str]) -> bool:
    """Whether a part goes on to the end of its file."""
    return given[3] == "*" or int(given[2]) + 1 == int(given[3])


def _total(response: HTTPResponse, start: int) -> int | None:
    """Bytes of the whole file, as far as the server says."""
    given = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if start and given is not None:
        return int(given[2]) + 1
    return None if response.length is None else start + response.length


def _check_size(shown: str, partial: Path, total: int | None, start: int) -> None:
    if total is None:
        return
    if total > MOST_BYTES:
        raise CheckpointError(
            f"{shown}: {total:,} bytes are to come, more than {MOST_BYTES:,}; fetch it yourself "
            "and name the file"
        )
    free = shutil.disk_usage(partial.parent).free
    if total - start > free:
        raise CheckpointError(
            f"{shown}: {total - start} bytes are to come, {partial.parent} has room for {free}; "
            "set TORCH_HOME to a folder on another disk"
        )


def _validator(response: HTTPResponse) -> str:
    tag: str = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _known_tag(partial: Path) -> str:
    return _tag(partial).read_text() if _tag(partial).is_file() else ""


def _tag(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
