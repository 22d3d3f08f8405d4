"""A plugin with which a run computes in float64: where two ways of computing have to come to the
same, what rounding and a CPU's choice of kernels do to it stays far below any bound."""

import torch
from torch import Tensor, nn

from ssl_platform.models.resnet import ResNet
from ssl_platform.registry import TRUNKS

torch.set_default_dtype(torch.float64)


@TRUNKS.register()
class DoubleResNet(ResNet):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())


@TRUNKS.register()
class DoubleConvs(nn.Sequential):
    """What a compiler is done with soon."""

    def __init__(self, *, out_dim: int):
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(nn.Conv2d(3, out_dim, 3), nn.BatchNorm2d(out_dim), nn.ReLU(), *pooled)
        self.out_dim = out_dim

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())
