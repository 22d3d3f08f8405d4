import json

import pytest
import torch
import torchvision
from zoo_files import VECTORS, released_state, write_released

from ssl_platform.errors import CheckpointError
from ssl_platform.registry import TRUNKS
from ssl_platform.zoo.architecture import resnet_node
from ssl_platform.zoo.layouts import sort_keys
from ssl_platform.zoo.trained_run import TrainedRun
from ssl_platform.zoo.weights import load_trunk, read_weights

ROWS = tuple(json.loads(VECTORS.read_text())["keys"])
SMALL_TRUNK = {
    "name": "ResNet",
    "block": "bottleneck",
    "layers": [3, 4, 6, 3],
    "width": 8,
    "stem_kernel": 7,
    "stem_stride": 2,
    "stem_pool": True,
}


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


def test_a_trunk_takes_every_tensor_of_a_released_file(released):
    weights = read_weights(str(released))
    assert weights.trunk_node == SMALL_TRUNK | {"in_channels": 3}
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


@pytest.fixture
def weights(released):
    return read_weights(str(released))


def misfit(trunk_node, weights, *, allow_partial=False):
    trunk = TRUNKS.build(trunk_node)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_trunk(trunk, weights, allow_partial=allow_partial)
    after = trunk.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"width": 16},
            "53 of the trunk's 318 tensors fit (conv1.weight has the shape [8, 3, 7, 7], the "
            "trunk's has [16, 3, 7, 7])",
        ),
        (
            {"layers": [3, 4, 7, 3]},
            "318 of the trunk's 336 tensors fit (layer3.6.conv1.weight is missing)",
        ),
        (
            {"layers": [3, 4, 5, 3]},
            "300 of the trunk's 300 tensors fit (layer3.5.conv1.weight is left over)",
        ),
    ],
    ids=["width", "deeper", "shallower"],
)
def test_another_trunk_names_the_first_misfit_and_what_would_fit(change, told, weights, released):
    assert misfit(SMALL_TRUNK | change, weights) == (
        f"{released}: {told}; the weights are those of "
        "trunk.block=bottleneck trunk.layers=[3,4,6,3] trunk.width=8 trunk.stem_kernel=7 "
        "trunk.stem_stride=2 trunk.stem_pool=true"
    )


def test_one_tensor_of_another_shape(tmp_path):
    state = released_state("swav_resnet50", shrink=True)
    state["module.layer4.2.conv3.weight"] = torch.zeros(1, 2, 3, 4)
    weights = read_weights(saved(tmp_path, state))
    message = misfit(SMALL_TRUNK, weights)
    assert "317 of the trunk's 318" in message
    assert "layer4.2.conv3.weight has the shape [1, 2, 3, 4]" in message
    trunk = TRUNKS.build(SMALL_TRUNK)
    load_trunk(trunk, weights, allow_partial=True)
    assert torch.equal(trunk.conv1.weight, state["module.conv1.weight"])


def test_counters_of_batch_norms_may_be_missing(tmp_path):
    state = released_state("swav_resnet50", shrink=True)
    state = {key: v for key, v in state.items() if not key.endswith("num_batches_tracked")}
    weights = read_weights(saved(tmp_path, state))
    load_trunk(TRUNKS.build(SMALL_TRUNK), weights, allow_partial=False)


def test_no_tensor_that_fits_is_too_few_even_for_a_part(tmp_path):
    weights = read_weights(saved(tmp_path, {"conv1.weight": torch.zeros(8, 3, 3, 3)}))
    assert "0 of the trunk's 318" in misfit(SMALL_TRUNK, weights, allow_partial=True)


def test_a_classifier_alone_has_no_trunk(tmp_path):
    linear = {"module.linear.weight": torch.zeros(3, 4), "module.linear.bias": torch.zeros(3)}
    weights = read_weights(saved(tmp_path, {"state_dict": linear, "epoch": 100}))
    assert "holds no trunk, only a classifier and others" in misfit(SMALL_TRUNK, weights)


@pytest.mark.parametrize("stem", [(8, 3, 3, 3), (8, 3, 5, 5)])
def test_the_stride_of_a_small_stem_cannot_be_told(stem, tmp_path):
    state = released_state("swav_resnet50", shrink=True) | {"module.conv1.weight": torch.ones(stem)}
    assert read_weights(saved(tmp_path, state)).trunk_node is None


def test_a_wide_resnet_of_torchvision_is_another_architecture():
    with torch.device("meta"):
        state = torchvision.models.wide_resnet50_2().state_dict()
    assert resnet_node(sort_keys(state).trunk) is None
