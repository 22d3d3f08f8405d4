"""A progress bar on a terminal, above which everything else that is printed has its own lines."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile
from tqdm.contrib.logging import logging_redirect_tqdm

from ssl_platform.console.working import WATCH

LEAST_WIDTH = 8  # of the bar itself
UNKNOWN_WIDTH = 80  # of a terminal that does not tell
LAYOUT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class ProgressBar:
    """The bar of a training, on the terminal of standard error.

    Until it is closed, log lines, warnings and what is printed stand on lines above it, and what
    else the process is doing is shown in the place of the epoch.

    Args:
        total: steps of the whole training.
        position: steps that are done already.
    """

    def __init__(self, total: int, position: int):
        self._tqdm: Any = tqdm(
            total=total,
            initial=position,
            bar_format=LAYOUT,
            dynamic_ncols=True,
            miniters=1,  # else it skips steps that are slower than those before them
            file=sys.stderr,
        )
        self._epoch = ""
        self._restore = ExitStack()
        before = sys.stdout, sys.stderr, logging.root.handlers
        self._restore.enter_context(_while_shown(before))
        self._restore.enter_context(logging_redirect_tqdm())
        for name in ("stdout", "stderr"):
            self._restore.enter_context(_own_lines(name, self._tqdm.fp))
        self._restore.callback(setattr, WATCH, "show", WATCH.show)
        WATCH.show = self._show_work

    def move(self, position: int, epoch: str, figures: Sequence[str]) -> None:
        """So many steps are done.

        Args:
            position: of the training.
            epoch: what stands before the bar.
            figures: what stands behind it, the most important first: those that fit.
        """
        if epoch != self._epoch:
            self._epoch = epoch
            self._tqdm.set_description_str(epoch, refresh=False)
        own = len(f"{epoch} 100%|| {self._tqdm.total}/{self._tqdm.total}") + LEAST_WIDTH
        room = (self._tqdm.format_dict["ncols"] or UNKNOWN_WIDTH) - own
        lengths = accumulate(len(figure) + len(", ") for figure in figures)
        shown = [figure for figure, length in zip(figures, lengths, strict=True) if length <= room]
        self._tqdm.set_postfix_str(", ".join(shown), refresh=False)
        self._tqdm.update(position - self._tqdm.n)

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        self._tqdm.write(text, file=self._tqdm.fp)

    def close(self) -> None:
        """Leave the bar as it is, and let everything be printed as before."""
        self._restore.close()
        self._tqdm.set_description_str(self._epoch, refresh=False)
        self._tqdm.close()

    def _show_work(self, text: str) -> None:
        self._tqdm.set_description_str(text or self._epoch)


_before: tuple[Any, ...] | None = None  # the streams and the handlers of logs, while a bar is shown


@contextmanager
def _while_shown(before: tuple[Any, ...]) -> Iterator[None]:
    global _before
    _before = before
    try:
        yield
    finally:
        _before = None


def _write_as_before() -> None:
    """A forked process has no bar, and must not wait for the lock of its parent's."""
    if _before is not None:
        sys.stdout, sys.stderr, logging.root.handlers = _before


os.register_at_fork(after_in_child=_write_as_before)


@contextmanager
def _own_lines(name: str, terminal: TextIO) -> Iterator[None]:
    """Have what is written to a standard stream stand above the bar, where it is a terminal's."""
    stream: TextIO = getattr(sys, name)
    if not stream.isatty():
        yield
        return
    stream.flush()
    lines = DummyTqdmFile(terminal)  # of the bar: tqdm takes it away for what is written there
    setattr(sys, name, lines)
    try:
        yield
    finally:
        if getattr(sys, name) is lines:
            setattr(sys, name, stream)
        if any(lines._buf):  # what had no line break yet
            lines.write("\n")
