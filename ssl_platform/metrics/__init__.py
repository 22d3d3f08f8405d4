"""Scores of a classification: ``metric(scores, labels)`` with (N, C) scores and (N,) labels."""

from collections.abc import Callable

from torch import Tensor

Metric = Callable[[Tensor, Tensor], float]
