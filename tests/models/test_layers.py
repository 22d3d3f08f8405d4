import pytest
import torch
from torch import nn

from ssl_platform.models.layers import LayerOutputs, layer_shapes
from ssl_platform.models.resnet import ResNet


def a_trunk() -> ResNet:
    torch.manual_seed(0)
    return ResNet(
        block="basic", layers=[1, 1, 1, 1], width=8, stem_kernel=3, stem_stride=1, stem_pool=True
    ).eval()


def test_a_trunk_without_out_dim_is_named():
    with pytest.raises(ValueError, match=r"^Identity has no out_dim, the number of its features$"):
        layer_shapes(nn.Identity(), ["pooled"], 32)


def test_outputs_are_those_of_the_layers_one_after_another():
    trunk, images = a_trunk(), torch.randn(2, 3, 16, 16)
    stem = trunk.relu(trunk.bn1(trunk.conv1(images)))
    second = trunk.layer2(trunk.layer1(trunk.maxpool(stem)))
    layer_outputs = LayerOutputs(trunk, ["layer2", "pooled", "layer2.0.conv1"])
    for _ in range(2):
        outputs = layer_outputs(images)
        assert list(outputs) == ["layer2", "pooled", "layer2.0.conv1"]
        assert torch.equal(outputs["layer2"], second)
        assert torch.equal(outputs["pooled"], trunk(images))
        assert num_hooks(trunk) == 2
    layer_outputs.remove()
    assert num_hooks(trunk) == 0


def num_hooks(trunk: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in trunk.modules())


def test_shapes_are_those_of_the_outputs_and_finding_them_changes_nothing():
    trunk = a_trunk().train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    layers = ["pooled", "layer3", "avgpool"]
    shapes = layer_shapes(trunk, layers, 20)
    assert shapes == {"pooled": 64, "layer3": (32, 3, 3), "avgpool": (64, 1, 1)}
    assert trunk.training
    assert num_hooks(trunk) == 0
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_layer_that_is_not_there_or_not_used():
    trunk = a_trunk()
    with pytest.raises(ValueError, match=r"^layer=layer5: the trunk has no such layer; pooled, or"):
        LayerOutputs(trunk, ["layer5"])
    trunk.extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"^layer=extra: the trunk has this layer and"):
        LayerOutputs(trunk, ["extra"])(torch.zeros(1, 3, 8, 8))
