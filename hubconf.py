"""Entry points of torch.hub: ``torch.hub.load("<this folder>", "resnet50", source="local")``.

Each returns a network from images (N, 3, H, W), normalised as ImageNet's, to pooled features, or
to the scores of ``num_classes`` classes by a new linear layer. The package need not be installed.

Args:
    pretrained: true for the weights named in the entry point's docstring, or the name of another
        model of the catalogue with the same trunk (``python tools/zoo.py list``).
    num_classes: of the new classifier; None for no classifier.
"""

from torch import nn

# what the package imports for this; checked by torch.hub before an entry point is called
dependencies = [
    "annotated_types", "filelock", "fvcore", "omegaconf", "safetensors", "torch",
    "tqdm", "yaml",
]  # fmt: skip


def resnet50(pretrained: bool | str = False, num_classes: int | None = None) -> nn.Module:
    """ResNet-50, 2048 features; ``pretrained`` by SwAV for 800 epochs."""
    return _model("resnet50", "swav_800ep", pretrained, num_classes)


def resnet50w2(pretrained: bool | str = False, num_classes: int | None = None) -> nn.Module:
    """ResNet-50, twice as wide, 4096 features; ``pretrained`` by SwAV for 400 epochs."""
    return _model("resnet50w2", "swav_RN50w2_400ep", pretrained, num_classes)


def resnet50w4(pretrained: bool | str = False, num_classes: int | None = None) -> nn.Module:
    """ResNet-50, four times as wide, 8192 features; ``pretrained`` by SwAV for 400 epochs."""
    return _model("resnet50w4", "swav_RN50w4_400ep", pretrained, num_classes)


def resnet50w5(pretrained: bool | str = False, num_classes: int | None = None) -> nn.Module:
    """ResNet-50, five times as wide, 10240 features; ``pretrained`` by SwAV for 400 epochs."""
    return _model("resnet50w5", "swav_RN50w5_400ep", pretrained, num_classes)


def _model(
    trunk_name: str, published: str, pretrained: bool | str, num_classes: int | None
) -> nn.Module:
    # imported here: torch.hub first says which of `dependencies` are missing
    from ssl_platform.zoo.architecture import shipped_trunk
    from ssl_platform.zoo.weights import load_trunk, read_weights

    trunk = shipped_trunk(trunk_name)
    if pretrained:
        name = published if pretrained is True else pretrained
        load_trunk(trunk, read_weights(f"zoo:{name}"), allow_partial=False)
    if num_classes is None:
        return trunk
    network = nn.Sequential()
    network.add_module("trunk", trunk)
    network.add_module("fc", nn.Linear(trunk.out_dim, num_classes))
    return network
