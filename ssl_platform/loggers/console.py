"""The progress of a training on the console."""

import logging
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from ssl_platform.loggers.bar import ProgressBar
from ssl_platform.loggers.base import POSITION, Logger, RunInfo
from ssl_platform.loggers.pace import Pace
from ssl_platform.registry import LOGGERS

logger = logging.getLogger(__name__)

IN_WORDS = ("loss", "uniform_loss", "lr", "images_per_second", "data_wait")  # see _shown()


@LOGGERS.register()
class Console(Logger):
    """A progress bar on a terminal, plain lines anywhere else.

    The progress counts the steps of the whole training, if all epochs were as long as the present
    one. The bar moves at each step; the time that is left is that of the latest figures.
    """

    bar: ProgressBar | None = None

    def start(self, run: RunInfo) -> None:
        self.run, self.pace = run, Pace(run)
        self.latest: list[str] = []  # figures
        if sys.stderr.isatty():
            self.bar = ProgressBar(run.num_steps, run.position)

    def step(self, step: int) -> None:
        position = self.run.position_at(step)
        self.pace.move(position)
        if self.bar is not None:
            self.bar.move(position, self._epoch(position), [self._time_left(), *self.latest])

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        run, position = self.run, self.run.position_at(step)
        if "loss" not in figures:
            self._print(f"epoch {epoch}: {_listed(figures)}")
            return
        self.pace.move(position)  # now: the figures of a GPU are there when its steps are done
        self.pace.measure()
        self.latest = list(_shown(figures))
        if self.bar is None:
            of_all = f"{self._epoch(position)} step {position}/{run.num_steps}"
            logger.info("%s: %s, %s", of_all, ", ".join(self.latest), self._time_left())

    def close(self, results: Mapping[str, Any] | None) -> None:
        if self.bar is not None:
            self.bar.close()

    def _time_left(self) -> str:
        return f"ETA {timedelta(seconds=round(self.pace.seconds_left()))}"

    def _epoch(self, position: int) -> str:
        """The epoch of the latest step."""
        return f"epoch {(position - 1) // self.run.steps_per_epoch + 1}/{self.run.num_epochs}"

    def _print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
        else:
            logger.info(text)


def _shown(figures: Mapping[str, float]) -> Iterator[str]:
    uniform = f" (ln K {figures['uniform_loss']:.3f})" if "uniform_loss" in figures else ""
    yield f"loss {figures['loss']:.4f}{uniform}"
    yield f"lr {figures['lr']:.3g}"
    for name, value in figures.items():
        if name not in (*POSITION, *IN_WORDS):
            yield f"{name} {value:.3g}"
    yield f"{figures['images_per_second']:.0f} images/s"
    yield f"data wait {figures['data_wait']:.0%}"


def _listed(figures: Mapping[str, float]) -> str:
    shown = {key: value for key, value in figures.items() if key not in POSITION}
    return ", ".join(f"{key.partition('/')[2] or key} {value:.3g}" for key, value in shown.items())
