"""Whether numbers are finite."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ssl_platform.ops.nested import leaves, name_of


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether every entry is finite, a boolean scalar on the device of the first tensor.

    The norm of all entries tells, in one pass: entries above about 1e19, whose squares overflow in
    float32, count as infinite. Only tensors of floating point are looked at, and the host does not
    wait for the device.
    """
    floats = [_values(t) for t in tensors if _has_fractions(t) and t.numel()]
    return torch.nn.utils.get_total_norm(floats).isfinite()


def num_bad_rows(rows: Tensor) -> int:
    """How many rows of (N, ...) have an entry that is NaN or infinite."""
    if all_finite([rows]):
        return 0
    return int((~rows.isfinite()).flatten(1).any(dim=1).sum())


def refuse_bad_rows(**tables: Tensor) -> None:
    """Raise a ``ValueError`` where rows of a table, (N, ...) and named, are NaN or infinite."""
    for name, rows in tables.items():
        if bad := num_bad_rows(rows):
            raise ValueError(f"{name}: {bad} of {len(rows)} rows are NaN or infinite")


def not_finite(state: Any, name: str) -> list[str]:
    """Names of the tensors with entries that are not finite, and of the numbers that are NaN.

    The names are those of the mappings and the places in the sequences that ``state`` is made of,
    with dots between. A plain number may be infinite: the best score before the first one is.
    """
    floats = dict(_floats(state, name))
    tensors = {name: leaf for name, leaf in floats.items() if isinstance(leaf, Tensor)}
    bad = [name for name, leaf in floats.items() if name not in tensors and math.isnan(leaf)]
    if not all_finite(tensors.values()):  # some are not finite, or only large
        bad += [name for name, tensor in tensors.items() if not _values(tensor).isfinite().all()]
    return bad


def with_nan(state: Any, name: str) -> list[str]:
    """Names, as of `not_finite`, of the tensors with an entry that is NaN."""
    tensors = {name: leaf for name, leaf in _floats(state, name) if isinstance(leaf, Tensor)}
    suspects = [] if all_finite(tensors.values()) else tensors
    return [name for name in suspects if _values(tensors[name]).isnan().any()]


def _floats(state: Any, name: str) -> Iterator[tuple[str, Tensor | float]]:
    for path, leaf in leaves(state, (name,)):
        is_tensor = isinstance(leaf, Tensor) and _has_fractions(leaf) and leaf.numel() > 0
        if is_tensor or isinstance(leaf, float):
            yield name_of(path), leaf


def _has_fractions(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _values(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.layout == torch.sparse_coo:
        tensor = tensor._values()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
