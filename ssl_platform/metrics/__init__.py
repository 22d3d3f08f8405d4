"""Scores of a classification: ``metric(scores, labels)`` with (N, C) scores and (N,) labels."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ssl_platform.errors import ConfigError, blame, kind_of

Metric = Callable[[Tensor, Tensor], float]


def measured(metrics: Mapping[str, Metric], scores: Tensor, labels: Tensor) -> dict[str, float]:
    """The values of some metrics, by their names.

    Raises:
        ConfigError: a metric raised an error, or gave something else than one number.
    """
    values = {}
    for name, metric in metrics.items():
        kind = getattr(metric, "__name__", type(metric).__name__)
        try:
            value = metric(scores, labels)
        except Exception as error:
            raise ConfigError([f"metrics.{name}: {kind} raised {blame(error)}"]) from error
        number = one_number(value, f"metrics.{name}: {kind} gave", ", it has to give one number")
        values[name] = float(number)
    return values


def one_number(value: Any, given: str, wanted: str) -> float:
    """A number of Python, numpy or torch, as one of Python.

    Raises:
        ConfigError: it is something else; the message is ``given``, what it is, and ``wanted``.
    """
    try:
        number = value.item() if hasattr(value, "item") else value
        return number if isinstance(number, int) else float(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError([f"{given} {kind_of(value)}{wanted}"]) from error
