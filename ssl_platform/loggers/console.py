"""The progress of a training on the console."""

import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ssl_platform.loggers.base import POSITION, Logger, RunInfo
from ssl_platform.registry import LOGGERS

logger = logging.getLogger(__name__)

IN_WORDS = ("loss", "uniform_loss", "lr", "images_per_second", "data_wait")  # see _step_text()


@LOGGERS.register()
class Console(Logger):
    """A progress bar on a terminal, plain lines anywhere else.

    The progress counts the steps of the whole training, if all epochs were as long as the present
    one.
    """

    def start(self, run: RunInfo) -> None:
        self.run = run
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=run.num_steps, initial=run.position, unit="step", dynamic_ncols=True
            )

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        run, position = self.run, self.run.position_at(step)
        of_epochs = f"epoch {epoch + 1}/{run.num_epochs}"
        if "loss" not in figures:
            self._print(f"epoch {epoch}: {_listed(figures)}")
        elif self.bar is not None:
            self.bar.set_description(of_epochs)
            self.bar.set_postfix_str(_step_text(figures), refresh=False)
            self.bar.update(position - self.bar.n)
        else:
            eta = figures["seconds"] * (run.num_steps - position) / (position - run.position)
            text = f"{of_epochs} step {position}/{run.num_steps}: {_step_text(figures)}"
            self._print(f"{text}, ETA {timedelta(seconds=round(eta))}")

    def close(self, results: Mapping[str, Any] | None) -> None:
        if self.bar is not None:
            self.bar.close()

    def _print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            logger.info(text)


def _step_text(figures: Mapping[str, float]) -> str:
    uniform = f" (ln K {figures['uniform_loss']:.3f})" if "uniform_loss" in figures else ""
    others = (f"{k} {v:.3g}, " for k, v in figures.items() if k not in (*POSITION, *IN_WORDS))
    return (
        f"loss {figures['loss']:.4f}{uniform}, lr {figures['lr']:.3g}, {''.join(others)}"
        f"{figures['images_per_second']:.0f} images/s, data wait {figures['data_wait']:.0%}"
    )


def _listed(figures: Mapping[str, float]) -> str:
    shown = {key: value for key, value in figures.items() if key not in POSITION}
    return ", ".join(f"{key.partition('/')[2] or key} {value:.3g}" for key, value in shown.items())
