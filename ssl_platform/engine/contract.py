"""Checks of components from plug-ins: a class that the platform cannot use is one line."""

from collections.abc import Callable
from inspect import signature
from math import inf, isfinite
from typing import Any

import torch
from torch import nn

from ssl_platform.engine.run import Events, Loss
from ssl_platform.errors import kind_of, nearest
from ssl_platform.launch import Launcher
from ssl_platform.loggers import Logger
from ssl_platform.models.teacher import Teacher

MOMENTS = tuple(name for name in vars(Events) if name.startswith("on_"))
CALLS_OF_LOGGERS = {  # the arguments of each method
    name: tuple(signature(method).parameters)[1:]
    for name, method in vars(Logger).items()
    if callable(method) and not name.startswith("_")
}
NUM_STEPS = 64  # at which a schedule is asked for its learning rate

KINDS: dict[str, tuple[type, str]] = {
    "hooks": (Events, "ssl_platform.events.Events"),
    "launch": (Launcher, "ssl_platform.launch.Launcher"),
    "loggers": (Logger, "ssl_platform.loggers.Logger"),
    "loss": (Loss, "ssl_platform.losses.base.Loss"),
    "teacher": (Teacher, "ssl_platform.models.teacher.Teacher"),
    "optimizer": (torch.optim.Optimizer, "torch.optim.Optimizer"),
}


def check_component(where: str, component: Any) -> None:
    """Check that a component has what the platform will call.

    Args:
        where: its place in the config.

    Raises:
        ValueError: one line that says what it has and what it has to have.
    """
    section, name = where.partition(".")[0], type(component).__name__
    if section in KINDS:
        kind, path = KINDS[section]
        if not isinstance(component, kind):
            raise ValueError(f"{name} has to be a subclass of {path}")
    _check_base(name, component)
    if section == "metrics" and callable(component) and not _takes(component, 2):
        raise ValueError(f"{name}{signature(component)} is called with the scores and the labels")
    if section in ("metrics", "schedule", "schedules") and not callable(component):
        raise ValueError(f"{name} has to have __call__")
    if isinstance(component, Logger):
        _check_logger(component)
    if isinstance(component, Events):
        _check_moments(component)
    if isinstance(component, Loss) and not _takes(component.forward, 3):
        raise ValueError(
            f"{name}.forward{signature(component.forward)} is called with the model, its outputs "
            "and the batch"
        )
    if isinstance(component, torch.optim.Optimizer):
        _check_optimizer(component)


def _check_base(name: str, component: Any) -> None:
    """A subclass has to call the constructor of torch, which sets these attributes."""
    for kind, attribute, arguments in (
        (nn.Module, "_buffers", ""),
        (torch.optim.Optimizer, "_optimizer_state_dict_pre_hooks", "params, defaults"),
    ):
        if isinstance(component, kind) and attribute not in vars(component):
            call = f"super().__init__({arguments})"
            raise ValueError(f"the constructor of {name} has to call {call} first")


def values_of(
    schedule: Callable[[int], float], num_epochs: int, steps_per_epoch: int
) -> dict[int, float]:
    """What a schedule gives at the start of every epoch and at some steps, by step.

    Args:
        schedule: of any option, called with the position.
        num_epochs, steps_per_epoch: length of the training.

    Raises:
        ValueError: one of them is no finite number.
    """
    num_steps = num_epochs * steps_per_epoch
    starts = {epoch * steps_per_epoch for epoch in range(num_epochs)}
    values = {}
    for step in sorted(_some_steps(num_steps) | starts):
        value, is_number = _looked_at(schedule(step))
        if not is_number:
            raise ValueError(
                f"{type(schedule).__name__} gives {value} at step {step} of {num_steps}; it has to "
                "give a number"
            )
        values[step] = float(value)
    return values


def check_schedule(schedule: Callable[[int], float], num_steps: int) -> None:
    """Ask a schedule for the learning rates of some steps, the first and the last among them.

    Raises:
        ValueError: one of them is no number from 0 on.
    """
    for step in sorted(_some_steps(num_steps)):
        rate, is_rate = _looked_at(schedule(step), least=0)
        if not is_rate:
            raise ValueError(
                f"{type(schedule).__name__} gives {rate} as the learning rate of step {step} of "
                f"{num_steps}, where optimizer.lr is 1; it has to give a number from 0 on"
            )


def _some_steps(num_steps: int) -> set[int]:
    last = max(0, num_steps - 1)
    return {round(last * part / NUM_STEPS) for part in range(NUM_STEPS + 1)}


def _looked_at(value: Any, least: float = -inf) -> tuple[Any, bool]:
    """A value as a message shows it, and whether it is a finite number from ``least`` on."""
    try:
        return value, isfinite(value) and value >= least
    except (TypeError, ValueError):
        return kind_of(value), False


def _check_logger(logger: Logger) -> None:
    name = type(logger).__name__
    if type(logger).figures is Logger.figures:
        raise ValueError(f"{name} has to have figures(self, step, epoch, figures)")
    for method, arguments in CALLS_OF_LOGGERS.items():
        if not _takes(getattr(logger, method), len(arguments)):
            raise ValueError(
                f"{name}.{method}{signature(getattr(logger, method))} is called with "
                f"{', '.join(arguments)}: def {method}(self, {', '.join(arguments)})"
            )


def _check_moments(listener: Events) -> None:
    name = type(listener).__name__
    for method in MOMENTS:
        if not _takes(getattr(listener, method), 1):
            raise ValueError(
                f"{name}.{method}{signature(getattr(listener, method))} is called with the run: "
                f"def {method}(self, run)"
            )
    for method in dir(type(listener)):
        if method.startswith("on_") and method not in MOMENTS:
            raise ValueError(
                f"{name}.{method} is called at no moment; {nearest(method, MOMENTS)} (a helper "
                "needs a name that does not begin with on_)"
            )


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    name = type(optimizer).__name__
    if not _takes(optimizer.step, 0):
        raise ValueError(
            f"{name}.step{signature(optimizer.step)} is called without a closure: an optimizer "
            "that needs one computes the loss several times a step, which a training does not"
        )
    if "lr" not in optimizer.defaults or any("lr" not in g for g in optimizer.param_groups):
        raise ValueError(
            f"{name} has no learning rate lr among its defaults, for a schedule to set"
        )


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many arguments."""
    try:
        signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True
