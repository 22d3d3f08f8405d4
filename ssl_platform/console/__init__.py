"""What the command line prints: streams that may fail without ending a run, and readable text.

Nothing ends because the reader of a stream has left, as ``head`` does. Text that comes from files,
from addresses or from other programs is shown by `legible`.
"""

import errno
import io
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ssl_platform.errors import CheckpointError, ConfigError, PlatformError

READER_HAS_LEFT = (errno.EPIPE, errno.EIO, errno.EBADF)  # ``head``, or a terminal that was closed
STRUCK_OUT = "*****"
SECRET_WORDS = "token|secret|passw|api_?key|signature|credential"  # parts of the names of keys
LONGEST_WORD = 400  # letters without a space: the longest paths are shorter
LONGEST_LINE = 4000
MOST_LINES = 100

# up to the last @, for a password that was not quoted may hold one, and slashes
_PASSWORD_IN_ADDRESS = re.compile(r"(\w://)(?:[^\s/?#]*@|[^\s/?#:]*:\S*@)")
# from the beginning of a word on, so that a long one is looked through once
_SECRET_VALUE = re.compile(
    rf"((?<![\w.-])[\w.-]*(?:{SECRET_WORDS})[\w-]*=+)(?!=)(\"[^\"]*\"|'[^']*'|[^\s&,'\"\]}}]+)",
    re.IGNORECASE,
)


class _LastingStream(io.FileIO):
    """A standard stream that accepts everything once it cannot be written.

    Attributes:
        error: why it cannot.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)


def keep_streams() -> None:
    """Have standard streams whose faults end no run; call it before any file is opened.

    Where the caller has closed one, the next file would get its number, and what libraries print
    would be written into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # else it is a notebook's, or a test's
            setattr(sys, name, _lasting(descriptor, stream))


def _lasting(descriptor: int, stream: Any) -> io.TextIOWrapper:
    """Write as ``stream`` does, which is None where the caller has closed it."""
    buffer = io.BufferedWriter(_LastingStream(descriptor, "w", closefd=False))
    if stream is None:
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace")
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        buffer,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def show(text: str) -> None:
    """Print what a command was asked for; no error when its reader has seen enough.

    Raises:
        PlatformError: it cannot be written, as on a full disk.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:  # of a stream that was not made to last
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    reason = why_unwritten()
    if reason is not None:
        raise PlatformError(f"standard output cannot be written ({reason})")


def why_unwritten() -> str | None:
    """Why a part of standard output was lost; None also where its reader has left."""
    with suppress(OSError):
        sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "error", None)
    if error is None or error.errno in READER_HAS_LEFT:
        return None
    return os.strerror(error.errno)


def print_error(error: PlatformError) -> None:
    """Print an error in words, one line for each mistake."""
    if isinstance(error, ConfigError):
        lines = [one_line(problem) for problem in error.problems[:MOST_LINES]]
        more = len(error.problems) - len(lines)
        lines += [f"... ({more} more)"] * (more > 0)
        if len(lines) > 1:
            lines = [f"{len(error.problems)} problems:", *(f"  {line}" for line in lines)]
    elif isinstance(error, CheckpointError):  # with names from a file, or what a server answered
        lines = [one_line(str(error))]
    else:
        lines = legible(str(error)).splitlines()
    lines = lines or [type(error).__name__]
    print("\n".join([f"error: {lines[0]}", *lines[1:]]), file=sys.stderr)


def legible(text: str) -> str:
    """Text as it may be shown: escaped, without secrets, and neither too wide nor too long.

    Control characters, those that change the direction of writing, and bytes that are no text are
    written as Python writes them (``\\x1b``); line breaks stay.
    """
    lines = text.split("\n")
    shown = [_shortened_line(escaped(without_secrets(line))) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"... ({len(lines) - MOST_LINES} more lines)")
    return "\n".join(shown)


def one_line(text: str) -> str:
    """As `legible`, a line break as its escape."""
    return legible(text.replace("\n", "\\n"))


def escaped(text: str) -> str:
    """Text whose characters that do not print are escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """Text whose passwords in addresses, and values of keys with `SECRET_WORDS`, are struck out."""
    text = _PASSWORD_IN_ADDRESS.sub(rf"\1{STRUCK_OUT}@", text)
    return _SECRET_VALUE.sub(rf"\1{STRUCK_OUT}", text)


def without_secret_values(value: Any, key: str = "") -> Any:
    """Plain nested values with the same struck out, and the values of keys with `SECRET_WORDS`."""
    if isinstance(value, Mapping):
        return {str(name): without_secret_values(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secret_values(inner, key) for inner in value]
    if isinstance(value, str):
        is_secret = re.search(SECRET_WORDS, key, re.IGNORECASE)
        return STRUCK_OUT if is_secret else without_secrets(value)
    return value


def _shortened_line(line: str) -> str:
    if len(line) <= LONGEST_WORD:
        return line
    words = (_shortened(word, LONGEST_WORD) for word in line.split(" "))
    return _shortened(" ".join(words), LONGEST_LINE)


def _shortened(text: str, length: int) -> str:
    """The beginning and the end: a message says there what it is about, and what to do."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}...({len(text)} letters)...{text[-length // 4 :]}"


class LegibleFormatter(logging.Formatter):
    """Log records as they may be shown."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text, see `legible`."""
        return legible(super().format(record))


def make_logs_legible() -> None:
    """Format what Python prints of logs by itself, where no logging has been set up."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LegibleFormatter())
