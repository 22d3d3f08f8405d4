"""Stop a training whose loss is no longer finite."""

from typing import TYPE_CHECKING

import torch

from ssl_platform.errors import DivergedError
from ssl_platform.events import Events
from ssl_platform.registry import HOOKS

if TYPE_CHECKING:
    from ssl_platform.engine import Run


@HOOKS.register()
class StopWhenNotFinite(Events):
    """Raise `DivergedError` at the first loss that is NaN or infinite, before a checkpoint is
    written.

    Args:
        every_steps: how often the host asks the device; the step that is named is exact all the
            same.
    """

    def __init__(self, *, every_steps: int):
        if every_steps < 1:
            raise ValueError(f"every_steps={every_steps}: at least 1")
        self.every_steps = every_steps

    def on_train_start(self, run: "Run") -> None:
        self.first_bad_step = torch.zeros((), dtype=torch.long, device=run.device)
        self.epoch = run.epoch + 1

    def on_epoch_start(self, run: "Run") -> None:
        self.epoch = run.epoch + 1

    def on_step_end(self, run: "Run") -> None:
        is_bad = ~torch.isfinite(run.losses["loss"].detach()) & (self.first_bad_step == 0)
        self.first_bad_step = torch.where(is_bad, run.step, self.first_bad_step)
        if run.step % self.every_steps == 0:
            self._stop_if_bad(run)

    def on_epoch_end(self, run: "Run") -> None:
        self._stop_if_bad(run)

    def _stop_if_bad(self, run: "Run") -> None:
        step = int(self.first_bad_step)
        if step:
            raise DivergedError(
                f"the loss became NaN or infinite at step {step} (epoch {self.epoch}, learning "
                f"rate {run.schedule(step - 1):.3g}): lower optimizer.lr, lengthen "
                "schedule.warmup_epochs or raise loss.epsilon; the checkpoints in "
                f"{run.output_dir / 'checkpoints'} are from before"
            )
