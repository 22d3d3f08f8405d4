"""Values as pure functions of the step: nothing to save, nothing to drift on resume.

The program hands in the option's own value (``base``: the optimizer's ``lr`` for the key
``schedule``, the value that the config gives an option for an entry of ``schedules``) and the
length of the training. A schedule is called with the position, 0 for the first step.
"""

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

    Raises:
        ValueError: the warm-up is as long as the training, or longer.
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
    """The option's own value at every step."""

    def __init__(self, base: float, num_epochs: int, steps_per_epoch: int):
        self.base = base

    def __call__(self, step: int) -> float:
        return self.base


@SCHEDULES.register()
class Cosine:
    """Half a cosine per step, from the option's own value towards ``end``.

    Step t of T has ``end + (base - end) * (1 + cos(pi * t / T)) / 2``: the weight decay of DINO
    (arXiv:2104.14294), from 0.04 to 0.4, and with ``end`` 1 the momentum of BYOL's teacher
    (arXiv:2006.07733, appendix J), ``1 - (1 - base) * (cos(pi * t / T) + 1) / 2``.

    Args:
        end: value that the last steps approach.
    """

    def __init__(self, base: float, num_epochs: int, steps_per_epoch: int, *, end: float):
        self.base, self.end, self.num_steps = base, end, num_epochs * steps_per_epoch

    def __call__(self, step: int) -> float:
        share = 0.5 * (1 + math.cos(math.pi * step / self.num_steps))
        return self.end + (self.base - self.end) * share


@SCHEDULES.register()
class Linear:
    """A straight line per step, from the option's own value to ``end``, which then stays.

    Args:
        end: value after the line.
        epochs: length of the line; may be a fraction of an epoch, or longer than the training.
    """

    def __init__(
        self,
        base: float,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        end: float,
        epochs: Annotated[float, Gt(0), "e.g. 30"],
    ):
        self.base, self.end, self.num_steps = base, end, epochs * steps_per_epoch

    def __call__(self, step: int) -> float:
        return self.base + (self.end - self.base) * min(1.0, step / self.num_steps)


@SCHEDULES.register()
class Warmup:
    """A straight line per step, from ``start`` to the option's own value, which then stays.

    With w warm-up steps, step t < w has ``start + (base - start) * t / (w - 1)``, as in
    `WarmupCosine`. DINO warms the temperature of its teacher up so, from 0.04 to 0.07 in 30 epochs.

    Args:
        start: value of the first step.
        epochs: length of the line; may be a fraction of an epoch.

    Raises:
        ValueError: the line is longer than the training.
    """

    def __init__(
        self,
        base: float,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        start: float,
        epochs: Annotated[float, Gt(0), "e.g. 30"],
    ):
        if epochs > num_epochs:
            raise ValueError(
                f"epochs={epochs}: the training has num_epochs={num_epochs}; the warm-up must not "
                "be longer"
            )
        self.base, self.start, self.num_steps = base, start, round(epochs * steps_per_epoch)

    def __call__(self, step: int) -> float:
        if step >= self.num_steps:
            return self.base
        return self.start + (self.base - self.start) * step / max(1, self.num_steps - 1)


@SCHEDULES.register()
class EpochCosine:
    """Half a cosine from the option's own value towards 0, constant within an epoch (the official
    linear evaluation of SwAV): epoch e of E has ``base * (1 + cos(pi * e / E)) / 2``.
    """

    def __init__(self, base: float, num_epochs: int, steps_per_epoch: int):
        self.base, self.num_epochs, self.steps_per_epoch = base, num_epochs, steps_per_epoch

    def __call__(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return 0.5 * self.base * (1 + math.cos(math.pi * epoch / self.num_epochs))


@SCHEDULES.register()
class Steps:
    """The option's own value, multiplied by ``factor`` at the start of each of some epochs.

    Args:
        milestones: epochs, from 0, in rising order.
        factor: e.g. 0.1.

    Raises:
        ValueError: the epochs do not rise.
    """

    def __init__(
        self,
        base: float,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        milestones: list[int],
        factor: Annotated[float, Gt(0), "e.g. 0.1"],
    ):
        require_rising(milestones)
        self.base, self.steps_per_epoch = base, steps_per_epoch
        self.milestones, self.factor = milestones, factor

    def __call__(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.base * self.factor ** sum(epoch >= m for m in self.milestones)


@SCHEDULES.register()
class Piecewise:
    """The option's own value, and from the start of each of some epochs on another one.

    Args:
        milestones: epochs, from 0, in rising order.
        values: one for each of them.

    Raises:
        ValueError: the epochs do not rise, or have another number of values.
    """

    def __init__(
        self,
        base: float,
        num_epochs: int,
        steps_per_epoch: int,
        *,
        milestones: list[int],
        values: list[float],
    ):
        require_rising(milestones)
        if len(values) != len(milestones):
            raise ValueError(f"values={values}: one for each of milestones={milestones}")
        self.values, self.milestones = [base, *values], milestones
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.values[sum(epoch >= m for m in self.milestones)]


def require_rising(milestones: list[int]) -> None:
    """Raise ``ValueError`` where epochs are not in rising order."""
    if milestones != sorted(milestones):
        raise ValueError(f"milestones={milestones}: epochs in rising order, e.g. [30, 60]")
