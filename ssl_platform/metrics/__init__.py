"""Scores of a classification: ``metric(scores, labels)`` with (N, C) scores and (N,) labels."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ssl_platform.errors import ConfigError, blame, kind_of

Metric = Callable[[Tensor, Tensor], float]


def measured(metrics: Mapping[str, Metric], scores: Tensor, labels: Tensor) -> dict[str, float]:
    """What some metrics give, by their names, as plain numbers.

    Raises:
        ConfigError: one gave no number, or raised.
    """
    found = {}
    for name, metric in metrics.items():
        kind = getattr(metric, "__name__", type(metric).__name__)
        try:
            value: Any = metric(scores, labels)
        except Exception as error:
            raise ConfigError([f"metrics.{name}: {kind} raised {blame(error)}"]) from error
        try:
            found[name] = float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                [f"metrics.{name}: {kind} gave {kind_of(value)}, it has to give one number"]
            ) from error
    return found
