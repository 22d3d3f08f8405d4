"""A terminal, and what a reader of it sees."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

WRITTEN = re.compile(r"\x1b\[A|\x1b\[K|\x1b\[[\d;]*m|[\r\n]|[^\x1b\r\n]+")


class Terminal:
    """A terminal of some columns, whose output is read as it comes.

    Attributes:
        stream: to be written to, as standard error is.
    """

    def __init__(self, columns: int):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream: TextIO = os.fdopen(slave, "w", buffering=1, encoding="utf-8")
        self._written = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._written += os.read(self._master, 4096)
            except OSError:  # the stream was closed
                return

    def close(self) -> None:
        """No more comes; what came can be looked at."""
        self.stream.close()
        self._reader.join()
        os.close(self._master)

    def states(self) -> list[list[str]]:
        """The lines on the screen, after each piece that was written."""
        lines, row, column, states = [""], 0, 0, []
        for piece in WRITTEN.findall(self._written.decode()):
            if piece == "\r":
                column = 0
            elif piece == "\n":
                row, column = row + 1, 0
                lines += [""] * (row == len(lines))
            elif piece == "\x1b[A":
                row -= 1
            elif piece[0] != "\x1b":
                line = lines[row].ljust(column)
                lines[row] = (line[:column] + piece + line[column + len(piece) :]).rstrip()
                column += len(piece)
            states.append(list(lines))
        return states

    def screen(self) -> list[str]:
        """The lines at the end."""
        return [line for line in self.states()[-1] if line]


@contextmanager
def terminal(monkeypatch, columns: int = 100) -> Iterator[Terminal]:
    """Standard output and standard error are a terminal's."""
    shown = Terminal(columns)
    with monkeypatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(f"sys.{name}", shown.stream)
        try:
            yield shown
        finally:
            shown.close()
