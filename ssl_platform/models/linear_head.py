"""A linear classifier on the trunk's features or on the map of one of its layers."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, nn

from ssl_platform.registry import HEADS


@dataclass(frozen=True)
class Pool:
    """Average pooling of a map, in its pixels."""

    kernel: Annotated[int, Ge(1)]
    stride: Annotated[int, Ge(1)]
    padding: Annotated[int, Ge(0)]

    def side_of(self, side: int) -> int:
        """Side of the pooled map."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1


@HEADS.register()
class LinearHead(nn.Module):
    """Class scores (N, ``num_classes``) of features (N, D) or of a map (N, C, H, W).

    Pooling - BatchNorm over channels - Linear; the first two are optional. Without them it is the
    official linear evaluation (SwAV, arXiv:2006.09882, appendix A.3), with both of them VISSL's
    classifier of a layer.

    Args:
        in_dim: D, or (C, H, W) of the layer.
        layer: what it reads: ``pooled``, the trunk's output, or a layer's name (``layer3``).
        num_classes: null is the number of classes of the training images.
        pool: of a map; null takes every position of it.
        batch_norm: normalise the channels first.
        init_std: standard deviation of the first weights, biases being 0; null draws both as torch
            does.
    """

    def __init__(
        self,
        in_dim: int | tuple[int, ...],
        *,
        layer: str,
        num_classes: Annotated[int, Ge(2)],
        pool: Pool | None,
        batch_norm: bool,
        init_std: Annotated[float, Gt(0), "e.g. 0.01; null for torch's own"] | None,
    ):
        super().__init__()
        channels, *sides = (in_dim,) if isinstance(in_dim, int) else in_dim
        if pool is not None:
            _refuse_unusable(pool, layer, sides)
        norm = nn.BatchNorm2d if sides else nn.BatchNorm1d
        self.pool: nn.Module = nn.Identity()
        if pool is not None:
            self.pool = nn.AvgPool2d(pool.kernel, pool.stride, pool.padding)
            sides = [pool.side_of(side) for side in sides]
        self.batch_norm = norm(channels) if batch_norm else nn.Identity()
        self.linear = nn.Linear(channels * math.prod(sides), num_classes)
        if init_std is not None:
            nn.init.normal_(self.linear.weight, std=init_std)
            nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, num_classes) scores."""
        return self.linear(self.batch_norm(self.pool(features)).flatten(1))


def _refuse_unusable(pool: Pool, layer: str, sides: list[int]) -> None:
    if not sides:
        raise ValueError(f"pool={pool}: layer={layer} gives no map to pool; set pool=null")
    if pool.padding > pool.kernel // 2:
        raise ValueError(f"pool.padding={pool.padding}: up to half of pool.kernel={pool.kernel}")
    if min(map(pool.side_of, sides)) < 1:
        shape = " x ".join(map(str, sides))
        raise ValueError(
            f"pool.kernel={pool.kernel}: larger than the map of layer={layer}, {shape}"
        )
