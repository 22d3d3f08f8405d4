"""Whether numbers are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether every entry is finite, a boolean scalar on the device of the first tensor.

    It is read off a norm, in one pass: entries of more than some 1e19, whose squares are not
    finite, count as infinite. Only tensors of floating point are looked at, and the host does not
    wait for the device.
    """
    floats = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    return torch.nn.utils.get_total_norm(floats).isfinite()
