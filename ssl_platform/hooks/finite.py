"""Stop a training whose loss or gradients are NaN or infinite."""

import json
import math
from collections import deque
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.engine import checkpoint
from ssl_platform.engine.run import Events, Run
from ssl_platform.errors import DivergedError
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.ops.finite import all_finite
from ssl_platform.registry import HOOKS


class Step(NamedTuple):
    """What is kept of a step until the host knows whether the step was finite."""

    number: int
    epoch: int  # from 1
    lr: float
    positions: Tensor  # (B,) in the data set
    losses: Tensor  # (losses,)


@HOOKS.register()
class StopWhenNotFinite(Events):
    """Raise `DivergedError` at the first loss or gradient that is NaN or infinite, on all ranks.

    On a CPU every step is checked before the weights are updated. On a GPU the host reads the
    result every few steps and before each checkpoint, since reading it means waiting for the GPU.
    The images, losses and gradients of the step are written to ``not_finite.json``. In float16 the
    gradient scaler skips such a step, and only several in a row are an error.

    Args:
        every_steps: how often the host reads the result from a GPU; the step in the message is
            exact in any case.
        max_skipped: steps in a row that the gradient scaler of float16 may skip.
    """

    def __init__(self, *, every_steps: Annotated[int, Ge(1)], max_skipped: Annotated[int, Ge(0)]):
        self.every_steps, self.max_skipped = every_steps, max_skipped

    def on_train_start(self, run: Run) -> None:
        self.allowed = self.max_skipped if run.scaler.is_enabled() else 0
        self.check_every = 1 if run.device.type == "cpu" else self.every_steps
        self.num_in_a_row = torch.zeros((), dtype=torch.long, device=run.device)
        self.bad_step = torch.zeros_like(self.num_in_a_row)  # the first beyond the allowed ones
        self.recent: deque[Step] = deque(maxlen=self.check_every)

    def on_backward_end(self, run: Run) -> None:
        assert run.batch is not None
        losses = torch.stack([loss.detach().float() for loss in run.losses.values()])
        lr = run.schedule(run.position)
        self.recent.append(Step(run.step + 1, run.epoch + 1, lr, run.batch.index, losses))
        is_finite = all_finite([run.losses["loss"], *_gradients(run).values()])
        is_bad = distributed.all_reduce_max((~is_finite).long())
        self.num_in_a_row = (self.num_in_a_row + 1) * is_bad
        is_first = (self.num_in_a_row > self.allowed) & (self.bad_step == 0)
        self.bad_step = torch.where(is_first, run.step + 1, self.bad_step)
        if (run.step + 1) % self.check_every == 0:
            self._stop_if_bad(run)

    def on_save_start(self, run: Run) -> None:
        self._stop_if_bad(run)

    def _stop_if_bad(self, run: Run) -> None:
        number = int(self.bad_step)
        if number == 0:
            return
        step = next(step for step in self.recent if step.number == number)
        path = run.output_dir / "not_finite.json"
        self._dump(run, step, path)
        raise DivergedError(
            f"a loss or a gradient became NaN or infinite at step {number} (epoch {step.epoch}, "
            f"learning rate {step.lr:.3g}): lower optimizer.lr, lengthen "
            f"schedule.warmup_epochs or raise loss.epsilon if there is one; {path} has the "
            f"images of that step; {checkpoint.what_is_saved(run.output_dir)}"
        )

    def _dump(self, run: Run, step: Step, path: Path) -> None:
        """Write the images, losses and gradients of a step, of all ranks; collective."""
        losses = distributed.all_gather(step.losses).view(-1, len(step.losses)).tolist()
        index = distributed.all_gather(step.positions).tolist()
        if distributed.rank() == 0:
            content = {
                "step": step.number,
                "epoch": step.epoch,
                "lr": step.lr,
                "losses": [  # of each process
                    dict(zip(run.losses, map(_plain, values), strict=True)) for values in losses
                ],
                "gradients_not_finite": _not_finite(_gradients(run)),
                "weights_not_finite": _not_finite(dict(run.model.named_parameters())),
                "report": dict(run.report),
                "images": {i: run.train_data.describe(i) for i in index},
            }
            if write_or_warn(path, json.dumps(content, indent=2) + "\n"):
                run.loggers.file(path)
        distributed.barrier()  # the first rank that exits ends the others


def _gradients(run: Run) -> dict[str, Tensor]:
    return {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def _plain(value: float) -> float | str:
    """NaN and infinity as text, since JSON has no such numbers."""
    return value if math.isfinite(value) else str(value)
