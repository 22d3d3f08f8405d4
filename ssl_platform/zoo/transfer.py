"""Download a file from an HTTP server, and go on where an earlier download broke off.

A download goes on only while the server says that the file is still the same (ETag, or date).
It ends when nothing more comes, when next to nothing comes, or when too much does.
"""

import os
import re
import shutil
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from time import monotonic
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from tqdm import tqdm

from ssl_platform.console.working import Work, working
from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.connections import open_address

MIB = 2**20
BLOCK = 1 << 20
MOST_BYTES = 2**35  # that a server may announce
MOST_UNANNOUNCED = 2**32  # that come from one that does not say how many
MOST_CONNECTIONS = 100
PACE_SECONDS, SLOWEST = 60, 1000  # in so many seconds at least so many bytes in each
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
TO_GO_ON = "what has come is kept, start it again to go on"
BY_HAND = "fetch it yourself and name the file"


def receive(address: str, partial: Path) -> None:
    """Fill a file with what is at an address, going on where an earlier try broke off.

    Args:
        address: ``http://`` or ``https://``; a login in it is for its host alone.
        partial: keeps what has come. The file beside it, ``.tag``, keeps the server's name for
            this version of the file.

    Raises:
        CheckpointError: it cannot be had; the message does not name the address.
        OSError: it cannot be kept.
    """
    for _ in range(MOST_CONNECTIONS):
        size = _size(partial)
        if _receive_some(address, partial):
            return
        if _size(partial) <= size:
            break
    raise CheckpointError(f"the connection breaks off after {_size(partial)} bytes; {TO_GO_ON}")


def forget(partial: Path) -> None:
    """Remove what has come of a file."""
    partial.unlink(missing_ok=True)
    _tag(partial).unlink(missing_ok=True)


def _receive_some(address: str, partial: Path) -> bool:
    """Append what one connection brings; returns whether the file is whole."""
    response, start, total = _open(address, partial)
    with response:
        _require_room(partial.parent, total, start)
        limit = MOST_UNANNOUNCED if total is None else total
        name = urlsplit(address).path.rpartition("/")[2]
        of = None if total is None else total // MIB
        bar = {"desc": name, "initial": start, "total": total, "disable": None}
        mode = "ab" if start else "wb"
        with (
            partial.open(mode) as file,
            working(f"fetching {name}", of, "MiB") as work,
            tqdm.wrapattr(file, "write", **bar) as shown,
        ):
            _tag(partial).write_text(_validator(response))  # only now is the part of this file
            ended = _append(response, shown, limit - start, work)
            file.flush()
            os.fsync(file.fileno())
    if total is None and _size(partial) >= MOST_UNANNOUNCED:
        forget(partial)
        raise CheckpointError(
            f"sends more than {MOST_UNANNOUNCED:,} bytes without saying how many will come; "
            f"nothing is kept; {BY_HAND}"
        )
    return ended and total in (None, _size(partial))


def _append(response: HTTPResponse, file: BinaryIO, limit: int, work: Work) -> bool:
    """Write what comes, at most ``limit`` bytes; returns whether it ended in good order."""
    since, num_bytes = monotonic(), 0
    while limit > 0:
        try:
            block = response.read1(min(BLOCK, limit))
        except (OSError, ValueError, HTTPException):  # of the connection, not of the disk
            return False
        if not block:
            break
        file.write(block)
        limit -= len(block)
        num_bytes += len(block)
        work.done = file.tell() // MIB
        if (now := monotonic()) - since >= PACE_SECONDS:
            if num_bytes < SLOWEST * PACE_SECONDS:
                raise CheckpointError(
                    f"less than {SLOWEST} bytes a second come for {PACE_SECONDS} seconds; "
                    f"{TO_GO_ON}"
                )
            since, num_bytes = now, 0
    return True


def _open(address: str, partial: Path) -> tuple[HTTPResponse, int, int | None]:
    """The server's answer, the position in the file that it begins at, and the file's size."""
    position, tag = _size(partial), _known_tag(partial)
    if position and tag:
        response = _ask(address, {"Range": f"bytes={position}-", "If-Range": tag})
        given = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == 200:
            return response, 0, response.length
        if given is not None and int(given[1]) == position and _is_of(response, tag):
            return response, position, int(given[2]) + 1 if given[3] == "*" else int(given[3])
        response.close()  # there is no rest, or it is of another file
        forget(partial)
    response = _ask(address, {})
    if response.status == 206:
        response.close()
        raise CheckpointError("answers with another part than was asked for")
    return response, 0, response.length


def _ask(address: str, headers: dict[str, str]) -> HTTPResponse:
    """The server's answer, which may be 416 where a rest is asked for: it has none."""
    try:
        return open_address(address, headers)
    except HTTPError as error:
        if error.code == 416 and headers:
            return error  # type: ignore[return-value]  # it is an answer too
        error.close()
        hint = "; it needs a login" if error.code in (401, 403) else ""
        raise CheckpointError(f"{error.code} {error.reason}{hint}") from error
    except (OSError, ValueError, HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise CheckpointError(f"cannot be reached ({reason})") from error


def _require_room(folder: Path, total: int | None, start: int) -> None:
    if total is None:
        return
    if total > MOST_BYTES:
        raise CheckpointError(f"{total:,} bytes are to come, more than {MOST_BYTES:,}; {BY_HAND}")
    free = shutil.disk_usage(folder).free
    if total - start > free:
        raise CheckpointError(
            f"{total - start} bytes are to come, {folder} has room for {free}; "
            "set TORCH_HOME to a folder on another disk"
        )


def _validator(response: HTTPResponse) -> str:
    """What changes when the file does: a strong ETag, else a date."""
    tag: str = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _is_of(response: HTTPResponse, tag: str) -> bool:
    """Whether a part is of the file with this tag; a date need not be repeated with it."""
    return (_validator(response) or ("" if tag.startswith('"') else tag)) == tag


def _known_tag(partial: Path) -> str:
    return _tag(partial).read_text() if _tag(partial).is_file() else ""


def _tag(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
