import json

import pytest
import torch
import torchvision
from zoo_files import VECTORS, released_state, write_released

from ssl_platform.registry import TRUNKS
from ssl_platform.trained_run import TrainedRun
from ssl_platform.zoo.architecture import resnet_node, trunk_option
from ssl_platform.zoo.layouts import sort_keys
from ssl_platform.zoo.weights import load_trunk, read_weights

ROWS = tuple(json.loads(VECTORS.read_text())["keys"])
SMALL = {"block": "bottleneck", "layers": [3, 4, 6, 3], "width": 8}
IMAGENET = {"stem_kernel": 7, "stem_stride": 2, "stem_pool": True}
SMALL_TRUNK = {"name": "ResNet", **SMALL, **IMAGENET}


@pytest.fixture
def released(tmp_path):
    return write_released(tmp_path / "swav.pth.tar", "swav_resnet50", shrink=True)


def saved(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    return str(tmp_path / "file.pth")


@pytest.mark.parametrize("row", ROWS)
def test_every_key_of_a_released_file_is_accounted_for(row, tmp_path):
    state = released_state(row, shrink=True)
    weights = read_weights(saved(tmp_path, state))
    assert weights.format == "swav"
    assert sorted(weights.origin.values()) == sorted(state)
    assert len(weights.trunk) == 318
    assert not weights.unused


@pytest.mark.parametrize(
    ("row", "trunk"),
    [(row, row.removeprefix("swav_").replace("deepclusterv2_or_selav2_", "")) for row in ROWS],
)
def test_shapes_tell_the_shipped_trunk(row, trunk):
    keys = json.loads(VECTORS.read_text())["keys"][row]
    state = {name: torch.empty(shape, device="meta") for name, shape, _ in keys}
    node = resnet_node(sort_keys(state).trunk)
    assert node is not None
    assert trunk_option(node) == f"trunk={trunk}"


def test_a_trunk_takes_every_tensor_of_a_released_file(released):
    weights = read_weights(str(released))
    assert weights.trunk_node == SMALL_TRUNK
    trunk = TRUNKS.build(weights.trunk_node)
    load_trunk(trunk, weights, allow_partial=False)
    state = torch.load(released)
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, state[f"module.{name}"])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_with_the_same_weights_gives_the_same_features(name, tmp_path):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=7)
    weights = read_weights(saved(tmp_path, theirs.state_dict()))
    assert weights.format == "torchvision"
    assert weights.classifier["weight"].shape[0] == 7
    ours = TRUNKS.build(weights.trunk_node)
    load_trunk(ours, weights, allow_partial=False)
    images = torch.randn(2, 3, 96, 96)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        difference = ours.eval()(images) - theirs.eval()(images)
    assert difference.abs().max() < 1e-5


def test_a_run_is_read_with_its_config(run):
    weights = read_weights(str(run))
    trained = TrainedRun.open(str(run))
    assert weights.format == "ssl_platform"
    assert weights.trunk_node == trained.options.trunk
    trunk = TRUNKS.build(weights.trunk_node).to(memory_format=torch.channels_last)
    load_trunk(trunk, weights, allow_partial=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(trunk.eval()(images), trained.model().trunk(images))
    assert read_weights(str(trained.checkpoint)).sha256 == weights.sha256
