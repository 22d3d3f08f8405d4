"""How long a training will still take, by its latest steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ssl_platform.loggers.base import RunInfo


@dataclass
class _Mean:
    """Seconds of each of some steps."""

    number: int = 0
    seconds: float = 0.0

    def add(self, number: int, seconds: float) -> None:
        self.number += number
        self.seconds += seconds

    @property
    def value(self) -> float:
        return self.seconds / self.number if self.number else 0.0


class Pace:
    """Seconds of a step, by the latest ones, and of the pause between two epochs, by all of them.

    The first step of an epoch counts as a pause: before it hooks measure, checkpoints are written
    and data workers start. The first of all, for which kernels are chosen and code is compiled,
    counts only until there are others.

    Args:
        run: at its beginning in this process.
        clock: seconds.
    """

    def __init__(self, run: RunInfo, clock: Callable[[], float] = time.monotonic):
        self.run, self.clock = run, clock
        self.position, self.moment = run.position, clock()
        self._first, self._measured, self._since, self._pauses = (_Mean() for _ in range(4))

    def move(self, position: int) -> None:
        """The training has come to ``position``; nothing if it has been there."""
        steps = position - self.position
        if steps <= 0:
            return
        now = self.clock()
        if self.position == self.run.position:
            kind = self._first
        elif steps == 1 and self.position % self.run.steps_per_epoch == 0:
            kind = self._pauses
        else:
            kind = self._since
        kind.add(steps, now - self.moment)
        self.position, self.moment = position, now

    def measure(self) -> None:
        """From now on a step takes as long as those since this was called before."""
        if self._since.number:
            self._measured, self._since = self._since, _Mean()

    def seconds_left(self) -> float:
        """Of the whole training."""
        known = (mean for mean in (self._measured, self._since, self._first) if mean.number)
        per_step = next(known, self._first).value
        steps = self.run.num_steps - self.position
        of_epoch = self.run.steps_per_epoch
        pauses = steps // of_epoch if self._pauses.number else 0
        return (steps - pauses) * per_step + pauses * self._pauses.value
