"""Learning rates as pure functions of the step: nothing to save, nothing to drift on resume."""

import math
from typing import Annotated

from annotated_types import Ge, Gt

from ssl_platform.registry import SCHEDULES


@SCHEDULES.register()
class WarmupCosine:
    """Linear warm-up, then half a cosine, both per step (SwAV, arXiv:2006.09882, appendix A.1).

    With w warm-up steps and T steps after them, step t has
    ``start_lr + (base_lr - start_lr) * t / (w - 1)`` for t < w, so the last warm-up step is at
    ``base_lr`` (a single one at ``start_lr``); then
    ``final_lr + (base_lr - final_lr) * (1 + cos(pi * (t - w) / T)) / 2``.

    Args:
        base_lr: the optimizer's ``lr``.
        num_epochs, steps_per_epoch: length of the training.
        warmup_epochs: 0 for none; may be a fraction of an epoch.
        start_lr: learning rate of the first step of the warm-up.
        final_lr: learning rate that the cosine approaches.
    """

    def __init__(
        self,
        base_lr: float,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        warmup_epochs: float,
        start_lr: Annotated[float, Ge(0)],
        final_lr: Annotated[float, Ge(0)],
    ):
        if not 0 <= warmup_epochs < num_epochs:
            raise ValueError(
                f"warmup_epochs={warmup_epochs}: the training has num_epochs={num_epochs}; "
                f"the warm-up must be shorter, e.g. {num_epochs / 10:g}"
            )
        self.base_lr, self.start_lr, self.final_lr = base_lr, start_lr, final_lr
        self.warmup_steps = round(warmup_epochs * steps_per_epoch)
        self.cosine_steps = num_epochs * steps_per_epoch - self.warmup_steps

    def __call__(self, step: int) -> float:
        """Learning rate of step 0, 1, 2, ..."""
        if step < self.warmup_steps:
            progress = step / max(1, self.warmup_steps - 1)
            return self.start_lr + (self.base_lr - self.start_lr) * progress
        angle = math.pi * (step - self.warmup_steps) / self.cosine_steps
        return self.final_lr + 0.5 * (self.base_lr - self.final_lr) * (1 + math.cos(angle))


@SCHEDULES.register()
class Constant:
    """The optimizer's ``lr`` at every step."""

    def __init__(self, base_lr: float, num_epochs: int, steps_per_epoch: int):
        self.base_lr = base_lr

    def __call__(self, step: int) -> float:
        return self.base_lr


@SCHEDULES.register()
class EpochCosine:
    """Half a cosine from the base rate towards 0, constant within an epoch (the official linear
    evaluation of SwAV): epoch e of E has ``base_lr * (1 + cos(pi * e / E)) / 2``.
    """

    def __init__(self, base_lr: float, num_epochs: int, steps_per_epoch: int):
        self.base_lr, self.num_epochs, self.steps_per_epoch = base_lr, num_epochs, steps_per_epoch

    def __call__(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return 0.5 * self.base_lr * (1 + math.cos(math.pi * epoch / self.num_epochs))


@SCHEDULES.register()
class Steps:
    """The base rate, multiplied by ``factor`` at the start of each epoch of ``milestones``.

    Args:
        milestones: epochs, from 0, in rising order.
        factor: e.g. 0.1.
    """

    def __init__(
        self,
        base_lr: float,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        milestones: list[int],
        factor: Annotated[float, Gt(0), "e.g. 0.1"],
    ):
        if milestones != sorted(milestones):
            raise ValueError(f"milestones={milestones}: epochs in rising order, e.g. [30, 60]")
        self.base_lr, self.steps_per_epoch = base_lr, steps_per_epoch
        self.milestones, self.factor = milestones, factor

    def __call__(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.base_lr * self.factor ** sum(epoch >= m for m in self.milestones)
