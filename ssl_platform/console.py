"""What a command line prints. Whoever reads it may leave, and nothing ends for that."""

import errno
import io
import logging
import os
import re
import sys
from contextlib import suppress
from typing import Any

from ssl_platform.errors import PlatformError

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # as ``head``, or a terminal that was closed


class _Lasting(io.FileIO):
    """A standard stream that goes on as if it were read, once it cannot be written.

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
    raw = _Lasting(descriptor, "w", closefd=False)
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace")
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
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
    """Why some of what was printed is nowhere; None also where its reader has left."""
    with suppress(OSError):
        sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "error", None)
    return os.strerror(error.errno) if error is not None and error.errno not in GONE else None


# from the beginning of a word on, so that a long one is looked through once
SECRET = r"(?<![\w.-])[\w.-]*(?:token|secret|passw|api_?key|signature|credential)[\w-]*"
STRUCK_OUT = "*****"
LONGEST_WORD = 400  # letters without a space: the longest paths are shorter
LONGEST_LINE = 4000
MOST_LINES = 100

# up to the last @, for a password that was not quoted may hold one, and slashes
_IN_ADDRESS = re.compile(r"(\w://)(?:[^\s/?#]*@|[^\s/?#:]*:\S*@)")
_ASSIGNED = re.compile(rf"((?:{SECRET})=+)(?!=)(\"[^\"]*\"|'[^']*'|[^\s&,'\"\]}}]+)", re.IGNORECASE)


def legible(text: str) -> str:
    """Lines as they may be shown: escaped, without secrets, cut where they go on for ever.

    Control characters, those that change the direction of writing, and bytes that are no text are
    written as Python writes them (``\\x1b``); line breaks stay.
    """
    lines = text.split("\n")
    shown = [_cut(escaped(without_secrets(line))) for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"... ({len(lines) - MOST_LINES} more lines)")
    return "\n".join(shown)


def one_line(text: str) -> str:
    """As `legible`, a line break as its escape."""
    return legible(text.replace("\n", "\\n"))


def escaped(text: str) -> str:
    """What does not print, as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """Passwords in addresses and values of keys that are called secret, struck out."""
    text = _IN_ADDRESS.sub(rf"\1{STRUCK_OUT}@", text)
    return _ASSIGNED.sub(rf"\1{STRUCK_OUT}", text)


def _cut(line: str) -> str:
    if len(line) <= LONGEST_WORD:
        return line
    words = (_shortened(word, LONGEST_WORD) for word in line.split(" "))
    return _shortened(" ".join(words), LONGEST_LINE)


def _shortened(text: str, length: int) -> str:
    """The beginning and the end: there is what it is about, and what to do."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}...({len(text)} letters)...{text[-length // 4 :]}"


class LegibleFormatter(logging.Formatter):
    """Log records as they may be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return legible(super().format(record))


def make_logs_legible() -> None:
    """Those of a process that has set up no logging, which Python prints by itself."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LegibleFormatter())
