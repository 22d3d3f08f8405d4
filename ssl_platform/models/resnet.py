"""ResNets of any depth and width (He et al., arXiv:1512.03385; wide variants as in SwAV).

Parameter names and numbers are torchvision's, so that weights travel both ways; the classifier
``fc`` is left out. A width multiplier widens every layer, as in SwAV's RN50-w2/w4/w5, unlike
torchvision's ``wide_resnet50_2``, which widens the middle of each bottleneck only.
"""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform.registry import TRUNKS

MIN_WIDTH = 8  # torch 2.14 corrupts memory in channels_last convolutions of fewer channels


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, divided by the stride."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = conv3x3(in_channels, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, expansion * planes, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the stride is that of the 3x3."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = conv1x1(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, expansion * planes, H / stride, W / stride)."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


@TRUNKS.register()
class ResNet(nn.Module):
    """Images (N, C, H, W) to globally pooled features (N, ``out_dim``).

    Args:
        block: ``basic`` (two 3x3 convolutions) or ``bottleneck`` (1x1, 3x3, 1x1).
        layers: number of blocks in each of the four stages.
        width: channels of the stem and the first stage; 64 is the standard, 128 is "w2".
        stem_kernel, stem_stride: the first convolution; 7 and 2 on ImageNet, 3 and 1 on small
            images.
        stem_pool: 3x3 max-pooling with stride 2 after it.
        in_channels: C; null is that of the images, which the check of a config fills in, else 3.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        *,
        block: Literal["basic", "bottleneck"],
        layers: list[int],
        width: Annotated[int, Ge(MIN_WIDTH), "e.g. 64"],
        stem_kernel: int,
        stem_stride: Annotated[int, Ge(1), "e.g. 2"],
        stem_pool: bool,
        in_channels: Annotated[int, Ge(1)] | None = 3,
    ):
        super().__init__()
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers={layers}: four positive numbers of blocks, e.g. [3,4,6,3]")
        if stem_kernel % 2 == 0 or stem_kernel < 1:
            raise ValueError(f"stem_kernel={stem_kernel}: an odd kernel size, e.g. 7 or 3")
        block_class = BLOCKS[block]
        padding = stem_kernel // 2
        self.conv1 = nn.Conv2d(
            in_channels or 3, width, stem_kernel, stride=stem_stride, padding=padding, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem_pool else nn.Identity()
        channels = width
        for stage, num_blocks in enumerate(layers):
            planes = width * 2**stage
            blocks: list[nn.Module] = []
            for number in range(num_blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(self._block(block_class, channels, planes, stride))
                channels = planes * block_class.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.out_dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _block(
        block_class: type[BasicBlock] | type[Bottleneck], channels: int, planes: int, stride: int
    ) -> nn.Module:
        out_channels = planes * block_class.expansion
        downsample = None
        if stride != 1 or channels != out_channels:
            downsample = nn.Sequential(
                conv1x1(channels, out_channels, stride), nn.BatchNorm2d(out_channels)
            )
        return block_class(channels, planes, stride, downsample)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_dim)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.avgpool(x).flatten(1)
