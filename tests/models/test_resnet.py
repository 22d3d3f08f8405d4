import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from torch import nn

from ssl_platform.models import SSLModel
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.resnet import ResNet

ROOT = Path(__file__).parents[2]
VECTORS = Path(__file__).parents[1] / "vectors"
COUNTS = json.loads((VECTORS / "param_counts.json").read_text())["counts"]
CHECKPOINTS = json.loads((VECTORS / "checkpoint_keys.json").read_text())["keys"]
OPTIONS = {
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "width": 8,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stem_pool": False,
}


def shipped(name: str) -> ResNet:
    options = yaml.safe_load((ROOT / "configs" / "trunk" / f"{name}.yaml").read_text())
    assert options.pop("name") == "ResNet"
    torch.manual_seed(0)
    return ResNet(**options)


def torchvision_twin(name: str, ours: ResNet) -> nn.Module:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    theirs.fc = nn.Identity()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(deepcopy(ours.state_dict()), assign=True)
    return theirs


def official_model(name: str, num_sets: int = 1) -> SSLModel:
    """Trunk and head as published, without storage: RN50-w5 has a head without batch norm."""
    with torch.device("meta"):
        trunk = shipped(name)
        head = PrototypeHead(
            trunk.out_dim,
            hidden_dim=COUNTS[name]["hidden_mlp"],
            out_dim=128,
            num_prototypes=[3000] * num_sets,
            batch_norm=name != "resnet50w5",
        )
    return SSLModel(trunk, {"prototypes": head})


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_features_equal_those_of_torchvision_with_the_same_weights(name):
    ours = shipped(name)
    theirs = torchvision_twin(name, ours)
    images = torch.randn(2, 3, 49, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for mode in (True, False):  # the evaluation sees the statistics of the training
            torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images))
    for ours_value, theirs_value in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(ours_value, theirs_value)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_equal_those_of_torchvision_with_the_same_weights(name):
    ours = shipped(name).double()  # batch norms of few values magnify rounding
    theirs = torchvision_twin(name, ours)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 33, 33, dtype=torch.float64, generator=generator)
    for model in (ours, theirs):
        model(images).square().sum().backward()
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("published", "name", "num_sets"),
    [
        *((f"swav_{name}", name, 1) for name in COUNTS),
        ("deepclusterv2_or_selav2_resnet50", "resnet50", 3),
    ],
)
def test_names_and_shapes_are_those_of_the_published_checkpoints(published, name, num_sets):
    state = official_model(name, num_sets).state_dict()
    ours = [
        [key, list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in state.items()
    ]
    theirs = [
        [our_name(key.removeprefix("module.")), shape, dtype]
        for key, shape, dtype in CHECKPOINTS[published]
    ]
    assert sorted(ours) == sorted(theirs)


def our_name(key: str) -> str:
    first, _, rest = key.partition(".")
    if first == "projection_head":
        return f"heads.prototypes.projection.{rest}"
    if first == "prototypes":  # "weight", or "prototypes2.weight" of the third set
        number = rest.removeprefix("prototypes").removesuffix("weight").removesuffix(".") or "0"
        return f"heads.prototypes.prototypes.{number}.weight"
    return f"trunk.{key}"


@pytest.mark.parametrize(("block", "expansion"), [("basic", 1), ("bottleneck", 4)])
@pytest.mark.parametrize("width", [8, 24])
def test_the_features_are_eight_times_the_width_times_the_expansion_of_the_block(
    block, expansion, width
):
    trunk = ResNet(**(OPTIONS | {"block": block, "width": width}))
    assert trunk.out_dim == 8 * width * expansion
    assert trunk(torch.zeros(2, 3, 16, 16)).shape == (2, trunk.out_dim)


@pytest.mark.parametrize(
    ("stem", "side"),
    [
        ({"stem_kernel": 3, "stem_stride": 1, "stem_pool": False}, 4),
        ({"stem_kernel": 7, "stem_stride": 2, "stem_pool": False}, 2),
        ({"stem_kernel": 7, "stem_stride": 2, "stem_pool": True}, 1),
    ],
)
def test_the_stem_sets_the_resolution_of_the_last_stage(stem, side):
    trunk = ResNet(**(OPTIONS | stem))
    shapes = []
    trunk.layer4.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    trunk(torch.zeros(2, 3, 32, 32))
    assert shapes == [(2, trunk.out_dim, side, side)]


def test_weights_start_as_in_the_published_code():
    torch.manual_seed(0)
    trunk = ResNet(**(OPTIONS | {"block": "bottleneck", "width": 64}))
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            expected = (2 / fan_out) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()  # the last of a block too
            assert (module.bias == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"layers": layers}, f"layers={layers}: four positive numbers of blocks")
            for layers in ([1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 1, 1], [])
        ),
        *(
            ({"stem_kernel": kernel}, f"stem_kernel={kernel}: an odd kernel size")
            for kernel in (0, 2, -1)
        ),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_expected(options, message):
    with pytest.raises(ValueError) as error:
        ResNet(**(OPTIONS | options))
    assert str(error.value).startswith(message)
