"""Say what is being done where nothing else is heard for a while."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ssl_platform.console import legible

QUIET_SECONDS = 8.0  # of silence, before a line says what is done
MORE_SECONDS = 9.0  # from one such line to the next: below 10 on a busy machine too
POLL_SECONDS = 0.5
Item = TypeVar("Item")
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")  # whoever has started us


class Work:
    """What is being done, and how far it is.

    Args:
        text: e.g. ``looking through /images``.
        start: moment at which it began, in seconds.
        total: of what is counted; None where nobody knows it.
        unit: what is counted, in the plural.
    """

    def __init__(self, text: str, start: float, total: int | None, unit: str):
        self.text, self.start, self.total, self.unit = text, start, total, unit
        self.done = 0

    def advance(self, number: int = 1) -> None:
        """So many more are done."""
        self.done += number

    def __str__(self) -> str:
        if not self.done:
            return self.text
        of_all = "" if self.total is None else f" of {self.total:,}"
        return f"{self.text}, {self.done:,}{of_all} {self.unit}"


class Watch:
    """Knows what this process is doing, and says so after some seconds of silence.

    Only the first of several processes says it.

    Args:
        say: prints a line.
        clock: seconds.

    Attributes:
        show: where what is done can be shown at once, beside a progress bar, this is called
            instead, again and again, and with an empty text when it is done.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.say, self.clock = say, clock
        self.show: Callable[[str], None] | None = None
        self._works: list[Work] = []
        self._is_shown = False
        self._heard = clock()
        self._wait = QUIET_SECONDS

    @contextmanager
    def working(self, text: str, total: int | None = None, unit: str = "images") -> Iterator[Work]:
        """What is done in this context; of several, one in another, all are said."""
        work = Work(text, self.clock(), total, unit)
        self._works.append(work)
        try:
            yield work
        finally:
            self._works.remove(work)

    def heard(self) -> None:
        """From now on it is silent: a line was printed, or a step was done."""
        self._heard, self._wait = self.clock(), QUIET_SECONDS

    def begin_anew(self) -> None:
        """Nothing is being done."""
        self.show, self._works, self._is_shown = None, [], False
        self.heard()

    def look(self) -> None:
        """Say what is done, if it is time to; to be called again and again."""
        works = list(self._works)  # of another thread
        text = ": ".join(map(str, works))
        if works:
            text += f" ({self.clock() - works[0].start:.0f} s)"
        if self.show is not None:
            if text or self._is_shown:
                self.show(text)
            self._is_shown = bool(text)
            self.heard()
        elif text and self.clock() - self._heard >= self._wait:
            self.say(text)
            self._heard, self._wait = self.clock(), MORE_SECONDS


def _print(text: str) -> None:
    """Print a line, but not into a bar that tells as much already."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    if not bars or not sys.stderr.isatty():
        print(legible(text), file=sys.stderr, flush=True)


WATCH = Watch(_print)
working = WATCH.working


def counted(items: Iterable[Item], text: str, total: int | None, unit: str) -> Iterator[Item]:
    """The items, while ``text`` and how many of them are done is said as in `Watch.working`."""
    with working(text, total, unit) as work:
        for item in items:
            yield item
            work.advance()


_ending: threading.Event | None = None  # of the thread that looks


@contextmanager
def no_silence() -> Iterator[None]:
    """In this context the process says what it is doing; in one inside another, as there."""
    global _ending
    rank = next((os.environ[name] for name in RANKS if name in os.environ), "0")
    if rank != "0" or _ending is not None:
        yield
        return
    _ending = ending = threading.Event()
    WATCH.heard()
    thread = threading.Thread(target=_look, args=(ending,), daemon=True, name="no silence")
    thread.start()
    try:
        yield
    finally:
        _ending = None
        ending.set()
        thread.join()


def _look(ending: threading.Event) -> None:
    while not ending.wait(POLL_SECONDS):
        WATCH.look()


def _begin_anew() -> None:
    """A forked process has none of its parent's threads, and does something else."""
    global _ending
    _ending = None
    WATCH.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
