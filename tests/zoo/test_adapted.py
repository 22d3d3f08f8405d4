"""Weights of a first layer for images of other channels, and trunks that say how many they take."""

import pytest
import torch
import torch.nn.functional as F
from timm.models import adapt_input_conv

from ssl_platform.errors import CheckpointError
from ssl_platform.registry import TRUNKS, load_components
from ssl_platform.zoo.adapted import adapted
from ssl_platform.zoo.architecture import resnet_node, shipped_trunk, trunk_option
from ssl_platform.zoo.weights import load_trunk, read_weights
from ssl_platform.zoo.writers import export


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 13])
def test_a_first_layer_is_fitted_as_timm_does(channels):
    weight = torch.randn(8, 3, 7, 7)
    assert torch.allclose(adapted(weight, channels), adapt_input_conv(channels, weight), atol=1e-6)
    if channels == 1 or channels % 3 == 0:  # an image of equal channels gives the same numbers
        grey = torch.randn(2, 1, 16, 16)
        before = F.conv2d(grey.expand(-1, 3, -1, -1), weight)
        after = F.conv2d(grey.expand(-1, channels, -1, -1), adapted(weight, channels))
        assert torch.allclose(before, after, atol=1e-4)


@pytest.fixture
def grey_file(tmp_path):
    """Weights of a ResNet-18 for grey images, as a file."""
    load_components()
    node = {"name": "ResNet", "block": "basic", "layers": [2, 2, 2, 2], "width": 64}
    stem = {"stem_kernel": 7, "stem_stride": 2, "stem_pool": True, "in_channels": 1}
    torch.save(TRUNKS.build(node | stem).state_dict(), tmp_path / "grey.pth")
    return tmp_path / "grey.pth"


def test_a_file_tells_the_channels_of_its_trunk_and_is_exported_with_them(grey_file, tmp_path):
    weights = read_weights(str(grey_file))
    assert weights.trunk_node == resnet_node(weights.trunk)
    assert weights.trunk_node is not None and weights.trunk_node["in_channels"] == 1
    assert trunk_option(weights.trunk_node) == "trunk=resnet18 trunk.in_channels=1"
    assert trunk_option(weights.trunk_node | {"in_channels": 3}) == "trunk=resnet18"
    (path,) = export(weights, "torch_export", tmp_path / "grey.pt2")
    program = torch.export.load(path).module()
    assert program(torch.zeros(3, 1, 64, 64)).shape == (3, 512)
    _, card = export(weights, "safetensors", tmp_path / "grey.safetensors")
    assert "`trunk=resnet18 trunk.in_channels=1`" in card.read_text()


def test_a_trunk_for_colours_refuses_grey_weights_or_has_them_fitted(grey_file):
    weights, trunk = read_weights(str(grey_file)), shipped_trunk("resnet18")
    line = "conv1.weight takes images of 1 channel, the trunk's of 3; a training fits it with adapt"
    with pytest.raises(CheckpointError, match=line):
        load_trunk(trunk, weights, allow_partial=False)
    load_trunk(trunk, weights, allow_partial=False, adapt_channels=True)
    grey = weights.trunk["conv1.weight"]
    assert torch.allclose(trunk.conv1.weight.sum(dim=1, keepdim=True), grey, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_trunk_of_timm_takes_the_channels_that_it_is_told(channels):
    load_components()
    node = {"name": "TimmTrunk", "model": "resnet10t", "options": {}, "pretrained": False}
    trunk = TRUNKS.build({**node, "in_channels": channels})
    assert trunk(torch.zeros(2, channels, 64, 64)).shape == (2, trunk.out_dim)
