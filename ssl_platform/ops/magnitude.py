"""How large the entries of many tensors are."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def largest_magnitude(tensors: Iterable[Tensor]) -> Tensor:
    """Greatest absolute value of all entries, a scalar; NaN if one of them is, 0 if there are none.

    Only tensors of floating point count. The host does not wait for the device.
    """
    floats = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    return torch.nn.utils.get_total_norm(floats, math.inf)
