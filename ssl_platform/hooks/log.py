"""The progress of a training: a bar or lines on the console, metrics.jsonl and TensorBoard."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.errors import ConfigError
from ssl_platform.files import replacing, sync
from ssl_platform.hooks.files import EventFile, reason
from ssl_platform.metrics import one_number
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)

TENSORBOARD_TAGS = {  # the names that VISSL's users have on their boards
    "loss": "Training/Loss",
    "lr": "Training/Learning_rate",
    "images_per_second": "Speed/img_per_sec",
    "data_wait": "Speed/data_wait",
}
POSITION = ("step", "epoch", "seconds")  # keys of every line


@HOOKS.register()
class Log(Events):
    """Write the loss and the speed every few steps, and what hooks report at the end of an epoch.

    A line of ``metrics.jsonl`` has ``step`` and ``epoch`` (finished ones), ``loss`` (mean over
    ranks and over the steps since the previous line), ``uniform_loss`` (ln K, if the loss has one),
    ``lr``, ``images_per_second`` (over all ranks), ``data_wait`` (share of the time spent waiting
    for images, 0 to 1) and ``seconds`` (since this process began to train). Lines at the end of an
    epoch have the reported figures (``health/...``, ``knn/...``) in place of loss and speed.

    Args:
        every_steps: steps between two lines.
        tensorboard: write the same to ``tensorboard/``.
    """

    comes_last = True

    def __init__(self, *, every_steps: Annotated[int, Ge(1)], tensorboard: bool):
        self.every_steps, self.tensorboard = every_steps, tensorboard
        self.writers: list[_Writer] = []
        self.loss_sum: torch.Tensor | None = None  # of this rank, since the last line
        self.num_losses = 0

    def state_dict(self) -> dict[str, Any]:
        return {"loss_sum": self.loss_sum, "num_losses": self.num_losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loss_sum, self.num_losses = state["loss_sum"], state["num_losses"]

    def on_train_start(self, run: Run) -> None:
        self.start = time.monotonic()
        self.start_step = run.step
        self._restart_clock(run)
        if distributed.rank() == 0:
            self.writers = [_Console(run), _JsonLines(run.output_dir / "metrics.jsonl", run.step)]
            if self.tensorboard:
                self.writers.append(_TensorBoard(run.output_dir / "tensorboard", run.step))

    def on_epoch_start(self, run: Run) -> None:
        if run.step == self.start_step:  # work before the first step is no part of its speed
            self._restart_clock(run)

    def on_step_end(self, run: Run) -> None:
        loss = run.losses["loss"].detach()
        self.loss_sum = loss.clone() if self.loss_sum is None else self.loss_sum + loss
        self.num_losses += 1
        if run.step % self.every_steps == 0:
            self._write(run, self._figures(run, self.loss_sum))
            self.loss_sum, self.num_losses = None, 0
            self._restart_clock(run)

    def on_epoch_end(self, run: Run) -> None:
        if run.report:
            self._write(run, {name: _number(name, value) for name, value in run.report.items()})

    def on_save_start(self, run: Run) -> None:
        for writer in self.writers:  # lines up to its step are on the disk before a checkpoint
            writer.sync()

    def on_train_end(self, run: Run) -> None:
        if run.step > self.start_step:
            seconds = time.monotonic() - self.start
            images = (run.step - self.start_step) * self._images_per_step(run)
            run.results["seconds"] = seconds
            run.results["images_per_second"] = images / seconds
        for writer in self.writers:
            writer.close()

    def _figures(self, run: Run, loss_sum: torch.Tensor) -> dict[str, float]:
        seconds = time.monotonic() - self.window_start
        num_steps = run.step - self.window_step
        total = distributed.all_reduce_sum(loss_sum)
        loss = total / distributed.world_size() / self.num_losses
        figures = {"loss": loss.item()}
        if run.loss.uniform_loss is not None:
            figures["uniform_loss"] = run.loss.uniform_loss
        return figures | {
            "lr": run.optimizer.param_groups[0]["lr"],
            **run.scheduled,
            "images_per_second": num_steps * self._images_per_step(run) / seconds,
            "data_wait": (run.train_loader.wait_seconds - self.window_wait) / seconds,
        }

    def _write(self, run: Run, figures: dict[str, float]) -> None:
        seconds = time.monotonic() - self.start
        line = {"step": run.step, "epoch": run.epoch, **figures, "seconds": seconds}
        for writer in self.writers:
            writer.write(line)

    @staticmethod
    def _images_per_step(run: Run) -> int:
        return run.train_loader.batch_size * distributed.world_size()

    def _restart_clock(self, run: Run) -> None:
        self.window_start, self.window_step = time.monotonic(), run.step
        self.window_wait = run.train_loader.wait_seconds


class _Writer:
    """Takes the lines of ``metrics.jsonl``, as mappings."""

    def write(self, line: dict[str, Any]) -> None:
        raise NotImplementedError

    def sync(self) -> None:
        """Before a checkpoint: what was written is on the disk."""

    def close(self) -> None:
        """At the end of the training."""


class _Console(_Writer):
    """A progress bar on a terminal, plain lines anywhere else.

    The progress counts the steps of the whole training, if all epochs were as long as the present
    one.
    """

    def __init__(self, run: Run):
        self.run, self.start = run, run.position
        self.total = run.num_epochs * run.train_sampler.steps_per_epoch
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.start, unit="step", dynamic_ncols=True)

    def write(self, line: dict[str, Any]) -> None:
        position = self.run.position
        epoch = f"epoch {self.run.epoch + 1}/{self.run.num_epochs}"
        if "loss" not in line:
            self._print(f"epoch {line['epoch']}: {_listed(line)}")
        elif self.bar is not None:
            self.bar.set_description(epoch)
            self.bar.set_postfix_str(_step_text(line), refresh=False)
            self.bar.update(position - self.bar.n)
        else:
            eta = line["seconds"] * (self.total - position) / (position - self.start)
            step = f"{epoch} step {position}/{self.total}"
            self._print(f"{step}: {_step_text(line)}, ETA {timedelta(seconds=round(eta))}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            logger.info(text)


class _JsonLines(_Writer):
    """One JSON object per line. Lines after the step at which a run resumes are dropped.

    What a full disk does not take is kept, and tried again with the next line.
    """

    def __init__(self, path: Path, step: int):
        self.path, self.pending = path, b""
        try:
            kept = _lines_up_to(path, step) if step > 0 and path.exists() else b""
            with replacing(path) as partial:
                partial.write_bytes(kept)
        except OSError as error:
            raise ConfigError([f"{path}: cannot be rewritten ({reason(error)})"]) from error

    def write(self, line: dict[str, Any]) -> None:
        was_pending = bool(self.pending)
        self.pending += json.dumps(line).encode() + b"\n"
        error = self._write_pending()
        if error is not None and not was_pending:
            logger.warning("%s cannot be written for now (%s)", self.path, reason(error))

    def sync(self) -> None:
        self._write_pending()
        with suppress(OSError):  # write() has warned of the error
            sync(self.path)

    def close(self) -> None:
        if self._write_pending() is not None:
            count = self.pending.count(b"\n")
            logger.warning(
                "%s: its last %d lines could not be written and are lost", self.path, count
            )

    def _write_pending(self) -> OSError | None:
        """Write what is pending; returns the error, if some of it stays pending."""
        try:
            with self.path.open("ab", buffering=0) as file:
                while self.pending:
                    self.pending = self.pending[file.write(self.pending) :]
        except OSError as error:
            return error
        return None


def _lines_up_to(path: Path, step: int) -> bytes:
    """The whole lines that a run had written up to ``step``."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        with suppress(ValueError, KeyError, TypeError):  # the rest of a line, after a crash
            if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    return b"".join(kept)


class _TensorBoard(_Writer):
    def __init__(self, folder: Path, step: int):
        self.file = EventFile(folder, first_step=step + 1 if step else None)

    def write(self, line: dict[str, Any]) -> None:
        scalars = {
            TENSORBOARD_TAGS.get(key, key): value
            for key, value in line.items()
            if key not in (*POSITION, "uniform_loss")
        }
        self.file.add_scalars(line["step"], scalars)


def _step_text(line: dict[str, Any]) -> str:
    uniform = f" (ln K {line['uniform_loss']:.3f})" if "uniform_loss" in line else ""
    return (
        f"loss {line['loss']:.4f}{uniform}, lr {line['lr']:.3g}, "
        f"{line['images_per_second']:.0f} images/s, data wait {line['data_wait']:.0%}"
    )


def _listed(line: dict[str, Any]) -> str:
    shown = {key: value for key, value in line.items() if key not in POSITION}
    return ", ".join(f"{key.partition('/')[2] or key} {value:.3g}" for key, value in shown.items())


def _number(name: Any, value: Any) -> float:
    return one_number(value, f"hooks: run.report[{name!r}] is", "; a hook reports one number")
