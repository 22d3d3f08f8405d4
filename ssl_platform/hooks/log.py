"""The figures of a training, averaged and handed to the loggers."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.judged import judged
from ssl_platform.metrics import one_number
from ssl_platform.registry import HOOKS


@HOOKS.register()
class Log(Events):
    """Hand the loss and the speed to the loggers every few steps, and at the end of an epoch what
    hooks report.

    The figures of some steps, also of those that are left at the end, are ``loss`` (mean over ranks
    and over the steps since the previous ones), ``uniform_loss`` (ln K, if the loss has one),
    ``grad_norm`` (of the latest step, before it was clipped, with ``clip_grad_norm``), ``lr``, the
    values that are on a schedule, ``images_per_second`` (over all ranks), ``data_wait`` (share of
    the time spent waiting for images, 0 to 1) and ``seconds`` (since this process began to train).
    Those at the end of an epoch are ``seconds`` and the reported ones (``health/...``,
    ``knn/...``).

    Args:
        every_steps: steps between two lines.
    """

    comes_last = True
    results = ("seconds", "images_per_second")

    def __init__(self, *, every_steps: Annotated[int, Ge(1)]):
        self.every_steps = every_steps
        self.loss_sum: torch.Tensor | None = None  # of this rank, since the last line
        self.num_losses = 0

    def state_dict(self) -> dict[str, Any]:
        return {"loss_sum": self.loss_sum, "num_losses": self.num_losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loss_sum, self.num_losses = state["loss_sum"], state["num_losses"]

    def on_train_start(self, run: Run) -> None:
        run.loggers.start(run.info())  # now, so that a slow connection is no part of the speed
        self.start = time.monotonic()
        self.start_step = run.step
        self._restart_clock(run)

    def on_epoch_start(self, run: Run) -> None:
        if run.step == self.start_step:  # work before the first step is no part of its speed
            self._restart_clock(run)

    def on_step_end(self, run: Run) -> None:
        loss = run.losses["loss"].detach()
        self.loss_sum = loss.clone() if self.loss_sum is None else self.loss_sum + loss
        self.num_losses += 1
        if run.step % self.every_steps == 0:
            self._tell_of_steps(run)

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch == run.num_epochs and self.num_losses:  # of a short run there are no others
            self._tell_of_steps(run)
        if run.report:
            self._tell(run, {name: _number(name, value) for name, value in run.report.items()})

    def on_save_start(self, run: Run) -> None:
        run.loggers.sync()

    def on_train_end(self, run: Run) -> None:
        if run.step > self.start_step:
            seconds = time.monotonic() - self.start
            images = (run.step - self.start_step) * self._images_per_step(run)
            run.results["seconds"] = seconds
            run.results["images_per_second"] = images / seconds
        judged(run)  # loggers have it too
        run.loggers.close(run.results)  # now, so that the bar has ended before a summary is printed

    def _tell_of_steps(self, run: Run) -> None:
        assert self.loss_sum is not None
        self._tell(run, self._figures(run, self.loss_sum))
        self.loss_sum, self.num_losses = None, 0
        self._restart_clock(run)

    def _figures(self, run: Run, loss_sum: torch.Tensor) -> dict[str, float]:
        seconds = time.monotonic() - self.window_start
        num_steps = run.step - self.window_step
        total = distributed.all_reduce_sum(loss_sum)
        loss = total / distributed.world_size() / self.num_losses
        figures = {"loss": loss.item()}
        if run.loss.uniform_loss is not None:
            figures["uniform_loss"] = run.loss.uniform_loss
        if run.grad_norm is not None:
            figures["grad_norm"] = run.grad_norm.item()
        return figures | {
            "lr": run.optimizer.param_groups[0]["lr"],
            **run.scheduled,
            "images_per_second": num_steps * self._images_per_step(run) / seconds,
            "data_wait": (run.train_loader.wait_seconds - self.window_wait) / seconds,
        }

    def _tell(self, run: Run, figures: dict[str, float]) -> None:
        seconds = time.monotonic() - self.start
        run.loggers.figures(run.step, run.epoch, {**figures, "seconds": seconds})

    @staticmethod
    def _images_per_step(run: Run) -> int:
        return run.train_loader.batch_size * distributed.world_size()

    def _restart_clock(self, run: Run) -> None:
        self.window_start, self.window_step = time.monotonic(), run.step
        self.window_wait = run.train_loader.wait_seconds


def _number(name: Any, value: Any) -> float:
    return one_number(value, f"hooks: run.report[{name!r}] is", "; a hook reports one number")
