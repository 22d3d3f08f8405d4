"""Stop a training whose numbers are no longer finite."""

import json
import math
from collections import deque
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.engine import checkpoint
from ssl_platform.engine.run import Events, Run
from ssl_platform.errors import DivergedError
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.ops.finite import all_finite
from ssl_platform.registry import HOOKS


class Step(NamedTuple):
    """What is kept of a step until the device has been asked about it."""

    number: int
    epoch: int  # from 1
    lr: float
    positions: Tensor  # (B,) in the data set
    losses: Tensor  # (losses,)


@HOOKS.register()
class StopWhenNotFinite(Events):
    """Raise `DivergedError` at the first loss or gradient that is NaN or infinite, on all ranks.

    On a CPU that is before the weights are updated; a GPU is asked every few steps and before each
    checkpoint. What the step was made of is kept as ``not_finite.json``. In float16 the gradient
    scaler leaves such a step out, and it is only an error when that goes on.

    Args:
        every_steps: how often the host asks the device; the step that is named is exact all the
            same.
        max_skipped: steps in a row that the scaler of float16 may leave out.
    """

    def __init__(self, *, every_steps: int, max_skipped: int):
        if every_steps < 1:
            raise ValueError(f"every_steps={every_steps}: at least 1")
        if max_skipped < 0:
            raise ValueError(f"max_skipped={max_skipped}: 0 or more")
        self.every_steps, self.max_skipped = every_steps, max_skipped

    def on_train_start(self, run: Run) -> None:
        self.allowed = self.max_skipped if run.scaler.is_enabled() else 0
        self.ask_every = 1 if run.device.type == "cpu" else self.every_steps
        self.num_in_a_row = torch.zeros((), dtype=torch.long, device=run.device)
        self.bad_step = torch.zeros_like(self.num_in_a_row)  # first that is one too many
        self.recent: deque[Step] = deque(maxlen=self.ask_every)

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
        if (run.step + 1) % self.ask_every == 0:
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
        """Keep what the step was made of, over all ranks; collective."""
        losses = distributed.all_gather(step.losses).view(-1, len(step.losses)).tolist()
        index = distributed.all_gather(step.positions).tolist()
        if distributed.rank() == 0:
            told = {
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
            write_or_warn(path, json.dumps(told, indent=2) + "\n")
        distributed.barrier()  # a rank that leaves ends the others


def _gradients(run: Run) -> dict[str, Tensor]:
    return {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def _plain(value: float) -> float | str:
    """JSON has no word for what is not finite."""
    return value if math.isfinite(value) else str(value)
