"""The first layer of a trunk, for images of another number of channels."""

from collections.abc import Mapping

import torch
from torch import Tensor


def first_layer_of_other_channels(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> str | None:
    """The one tensor whose shape differs, if it does so in nothing but the channels it takes.

    Args:
        wanted: a trunk's tensors by name.
        given: those of a checkpoint.
    """
    others = [n for n, value in wanted.items() if n in given and given[n].shape != value.shape]
    if len(others) != 1:
        return None
    (name,) = others
    shapes = [list(wanted[name].shape), list(given[name].shape)]
    if any(len(shape) != 4 for shape in shapes):
        return None
    return name if len({tuple(s[:1] + s[2:]) for s in shapes}) == 1 else None


def adapted(weight: Tensor, channels: int) -> Tensor:
    """The weights of a first layer, (out, in, h, w), for so many channels.

    As timm does it: for grey the sum over the channels, which takes an image of equal channels to
    the same numbers; for others the channels again and again, scaled so that their sum over equal
    channels stays, up to the rest of the division.
    """
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    count = weight.shape[1]
    repeated = torch.cat([weight] * -(-channels // count), dim=1)[:, :channels]
    return repeated * (count / channels)
