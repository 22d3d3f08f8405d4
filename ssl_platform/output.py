"""What a command line prints. Whoever reads it may leave, and nothing ends for that."""

import errno
import io
import os
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
