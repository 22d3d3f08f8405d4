"""Scores of a classification: ``metric(scores, labels)`` with (N, C) scores and (N,) labels.

All images of an evaluation are scored at once, those of all processes, so that a metric knows
nothing of batches and ranks. What it gives is told by its shape:

- one number: a figure, shown and logged;
- (C,): a figure for each class, NaN for one without images;
- (C, C): a table, rows by true class and columns by predicted class.

The last two become files with the names of the classes. A label may be C or above, where an image
is of a class that the scores do not know; a table may have rows for such classes.

A metric may have attributes: ``min_classes``, with fewer of which it says nothing and is left out;
``balanced = True``, where rare classes count as much as others; ``multi_label = True``, where an
image may have several classes: labels are then (N, C) of 1 (present), -1 (absent) and 0 (left out).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_platform.errors import ConfigError, blame, kind_of

Metric = Callable[[Tensor, Tensor], Any]
SHAPES = ", it has to give one number, (C,) or (C, C) for C classes"


class Measured(NamedTuple):
    """The values of some metrics, by their names."""

    figures: dict[str, float]
    tables: dict[str, Tensor]  # (C,) or (C, C), on the CPU


def measured(metrics: Mapping[str, Metric], scores: Tensor, labels: Tensor) -> Measured:
    """The values of the metrics that say something of so many classes.

    Raises:
        ConfigError: a metric raised an error, or gave something of another shape.
    """
    values = Measured({}, {})
    for name, metric in metrics.items():
        if scores.shape[1] < getattr(metric, "min_classes", 0):
            continue
        kind = getattr(metric, "__name__", type(metric).__name__)
        try:
            value = metric(scores, labels)
        except Exception as error:
            raise ConfigError([f"metrics.{name}: {kind} raised {blame(error)}"]) from error
        table = _table(value, scores, labels)
        if table is None:
            values.figures[name] = float(one_number(value, f"metrics.{name}: {kind} gave", SHAPES))
        else:
            values.tables[name] = table
    return values


def _table(value: Any, scores: Tensor, labels: Tensor) -> Tensor | None:
    """A value with one entry, or a row and a column, for each class; None if it has not."""
    shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
    num_classes = scores.shape[1]
    most = num_classes if labels.ndim == 2 else max(num_classes, int(labels.max()) + 1)
    if len(shape) not in (1, 2) or len({*shape}) != 1 or not num_classes <= shape[0] <= most:
        return None
    return torch.as_tensor(value).detach().cpu()


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
