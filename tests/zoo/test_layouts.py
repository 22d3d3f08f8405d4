"""One model under the names of each project: all readers find the same trunk and head in it."""

import random
import re
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn
from zoo_files import released_state

from ssl_platform.errors import CheckpointError
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.zoo.architecture import head_node, resnet_node
from ssl_platform.zoo.layouts import NESTS, sort_keys
from ssl_platform.zoo.verify import describe, require_whole
from ssl_platform.zoo.weights import Weights, read_weights

NUMBERS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@pytest.fixture(scope="module")
def released():
    return released_state("swav_resnet50", shrink=True)


def renamed(state, *substitutions):
    """The state under other names: each key by the first pattern that matches it."""

    def name(key):
        for pattern, replacement in substitutions:
            if re.match(pattern, key):
                return re.sub(pattern, replacement, key, count=1)
        raise AssertionError(key)

    return {name(key): value for key, value in state.items()}


def swav(state):
    return state


def swav_training(state):
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": 7, "state_dict": state, "optimizer": optimizer, "amp": {}}


def swav_without_wrapper(state):
    return {key.removeprefix("module."): value for key, value in state.items()}


def vissl(state):
    names = renamed(
        state,
        (r"module\.projection_head", "0.projection_head"),
        (r"module\.prototypes", "0.prototypes0"),
        (r"module\.", "_feature_blocks."),
    )
    trunk = {key: value for key, value in names.items() if key.startswith("_feature_blocks")}
    heads = {key: value for key, value in names.items() if key not in trunk}
    model = {"model": {"trunk": trunk, "heads": heads}, "meta": {"config": {}}}
    return {"classy_state_dict": {"base_model": model, "phase_idx": 3}, "iteration": 5}


def solo_learn(state):
    names = renamed(
        state,
        (r"module\.projection_head", "projector"),
        (r"module\.prototypes\.weight", "prototypes.weight_v"),
        (r"module\.", "backbone."),
    )
    names |= {"prototypes.weight_g": torch.ones(3, 1), "queue": torch.zeros(2, 4, 8)}
    return {"state_dict": names, "pytorch-lightning_version": "2.1", "callbacks": {}}


def lightly(state):
    """Without the prototypes' bias, which lightly's own have."""
    return renamed(
        state,
        (r"module\.projection_head", "projection_head.layers"),
        (r"module\.prototypes", "prototypes.heads.0"),
        (r"module\.(conv1|bn1|layer\d)", lambda match: f"backbone.{NUMBERS[match[1]]}"),
    )


def ssl_platform(state):
    return {
        "model": renamed(
            state,
            (r"module\.projection_head", "heads.prototypes.projection"),
            (r"module\.prototypes", "heads.prototypes.prototypes.0"),
            (r"module\.", "trunk."),
        ),
        "epoch": 3,
    }


LAYOUTS = [
    swav, swav_training, swav_without_wrapper, vissl, solo_learn, lightly, ssl_platform,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_all_layouts_hold_the_same_model(layout, released):
    parts = sort_keys(layout(released))
    assert layout.__name__.replace("_", "-").startswith(parts.format.replace("_", "-"))
    wanted = sort_keys(released)
    for part in ("trunk", "head"):
        tensors = getattr(parts, part)
        assert tensors.keys() == getattr(wanted, part).keys()
        assert all(torch.equal(tensors[name], getattr(wanted, part)[name]) for name in tensors)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_an_unknown_key_is_an_error(layout, released):
    content = layout(dict(released))
    state = content
    while nest := next((state[key] for key in NESTS if key in state), None):
        state = nest
    state["surprise"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"^1 of its \d+ keys are unknown .*: surprise$"):
        sort_keys(content)


def test_two_keys_of_one_tensor_are_an_error(released):
    with pytest.raises(CheckpointError, match=r"^both module.bn1.bias and bn1.bias would be trunk"):
        sort_keys({**released, "bn1.bias": torch.zeros(8)})


@pytest.mark.parametrize(
    "head",
    [
        {"projection_head.0.weight": torch.ones(4)},
        {"projection_head.0.bias": torch.ones(4)},
        {"projection_head.0.weight": torch.ones(4, 8), "prototypes.weight": torch.ones(3)},
        {f"projection_head.{n}.weight": torch.ones(4, 4) for n in (0, 2, 4)},
    ],
)
def test_what_is_no_head_is_unused(head):
    parts = sort_keys({"prototypes.weight": torch.ones(3, 4), **head})
    assert not parts.head
    assert parts.unused.keys() == {"prototypes.weight", *head}


def test_sets_of_prototypes_in_any_order():
    head = {"projection.0.weight": torch.ones(4, 8), "projection.0.bias": torch.ones(4)}
    sizes = {f"prototypes.{number}.weight": torch.ones(20 - number, 4) for number in (10, 2, 0)}
    assert head_node({**head, **sizes})["num_prototypes"] == [20, 18, 10]


def test_what_lies_beside_the_weights_is_told(released):
    parts = sort_keys(vissl(released))
    assert set(parts.unused) == {
        "iteration", "classy_state_dict.phase_idx", "classy_state_dict.base_model.meta",
    }  # fmt: skip


def test_lightly_names_are_those_of_its_modules():
    backbone = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
    projection = nn.Sequential(
        nn.Linear(512, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8)
    )
    model = nn.ModuleDict({"backbone": backbone})
    model["projection_head"] = nn.ModuleDict({"layers": projection})
    model["prototypes"] = nn.ModuleDict({"heads": nn.ModuleList([nn.Linear(8, 12)])})
    parts = sort_keys({"state_dict": model.state_dict(), "epoch": 1})
    assert parts.format == "lightly"
    assert parts.trunk.keys() == {
        name for name in torchvision.models.resnet18().state_dict() if not name.startswith("fc.")
    }
    assert not parts.head
    assert "bias" in parts.unused["prototypes.heads.0.weight"]


def test_a_first_linear_layer_without_bias_gives_the_same_embeddings(tmp_path):
    projection = nn.Sequential(
        nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8)
    ).eval()
    state = {f"projection_head.layers.{key}": v for key, v in projection.state_dict().items()}
    state["prototypes.heads.0.weight"] = torch.randn(12, 8)
    torch.save(state, tmp_path / "head.pth")
    head = read_weights(str(tmp_path / "head.pth")).prototype_head()
    features = torch.randn(5, 16)
    wanted = nn.functional.normalize(projection(features), dim=1)
    torch.testing.assert_close(head.embed(features), wanted)


@pytest.mark.parametrize("hidden_dim", [0, 16])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("num_prototypes", [[5], [5, 6, 7]])
def test_the_weights_tell_the_head(hidden_dim, batch_norm, num_prototypes, tmp_path):
    head = PrototypeHead(
        24,
        hidden_dim=hidden_dim,
        out_dim=8,
        num_prototypes=num_prototypes,
        batch_norm=batch_norm,
    ).eval()
    state = {f"heads.mine.{name}": value for name, value in head.state_dict().items()}
    torch.save({"model": state}, tmp_path / "file.pth")
    read = read_weights(str(tmp_path / "file.pth")).prototype_head()
    features = torch.randn(3, 24)
    for ours, theirs in zip(read(features).scores, head(features).scores, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_of_several_heads_the_first_is_read():
    state = {
        "heads.b.projection.0.weight": torch.zeros(4, 8),
        "heads.b.projection.0.bias": torch.zeros(4),
        "heads.b.prototypes.0.weight": torch.zeros(3, 4),
        "heads.a.projection.0.weight": torch.ones(5, 8),
        "heads.probe.linear.weight": torch.zeros(10, 8),
        "heads.probe.linear.bias": torch.zeros(10),
    }
    parts = sort_keys({"model": state})
    assert parts.head["projection.0.weight"].shape == (4, 8)
    assert parts.unused == {"heads.a.projection.0.weight": "another head; 'b' is read"}
    assert parts.classifier["weight"].shape == (10, 8)


@pytest.mark.parametrize(
    "state",
    [
        {"state_dict": {"module.linear.weight": torch.ones(7, 16)}, "best_acc": 75.3},
        {"module.projection_head.weight": torch.ones(7, 16)},
        {"fc.weight": torch.ones(7, 16), "conv1.weight": torch.ones(8, 3, 7, 7)},
        {"state_dict": {"classifier.weight": torch.ones(7, 16)}},
    ],
)
def test_classifiers_are_found(state):
    inner = state.get("state_dict", state)
    inner |= {
        key.replace("weight", "bias"): torch.ones(7) for key in list(inner) if "conv" not in key
    }
    assert sort_keys(state).classifier["weight"].shape == (7, 16)
    assert sort_keys(state).classifier["bias"].shape == (7,)


@pytest.mark.parametrize("norm", ["heads.probe.batch_norm.weight", "module.bn.weight"])
def test_a_classifier_behind_a_batch_norm_is_not_taken_for_a_linear_layer(norm):
    linear = norm.replace("batch_norm", "linear").replace("bn", "linear")
    state = {linear: torch.ones(7, 16), linear.replace("weight", "bias"): torch.ones(7)}
    parts = sort_keys({**state, norm: torch.ones(16)})
    assert not parts.classifier
    assert parts.unused.keys() == {*state, norm}


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "convnext_atto", "efficientnet_b0"])
def test_a_model_of_timm_is_named_as_its_trunk_names_it(model):
    with torch.device("meta"):
        state = timm.create_model(model).state_dict()
        trunk = timm.create_model(model, num_classes=0).state_dict()
    parts = sort_keys(state)
    assert parts.format == "timm"
    assert parts.trunk.keys() == {f"model.{name}" for name in trunk}
    assert parts.classifier.keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ({"epoch": 3}, "holds no tensors; its keys are epoch"),
        ({"foo.bar": torch.zeros(1)}, "no known layout: foo.bar; known are vissl, ssl_platform"),
    ],
)
def test_no_state_dict_and_no_known_layout(content, message):
    with pytest.raises(CheckpointError, match=message):
        sort_keys(content)


KEYS = [
    "conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv3.weight", "fc.weight", "fc.bias",
    "projection_head.0.weight", "projection_head.0.bias", "projection_head.1.weight",
    "projection_head.3.weight", "projection_head.weight", "prototypes.weight",
    "prototypes.prototypes3.weight", "linear.weight", "linear.bias", "bn.weight",
    "trunk.conv1.weight", "heads.a.projection.0.weight", "heads.a.prototypes.0.weight",
    "heads.a.prototypes.other", "heads.a.linear.weight", "prototypes.heads.0.weight", "cls_token",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_known_names_with_any_shapes_are_described_or_refused(tmp_path):
    rng = random.Random(0)
    described = 0
    for _ in range(1000):
        names = rng.sample(KEYS, rng.randint(1, 4))
        shapes = {name: rng.choices((0, 1, 3, 7, 8), k=rng.randint(0, 4)) for name in names}
        try:
            parts = sort_keys({name: torch.ones(shape) for name, shape in shapes.items()})
            weights = Weights("a", tmp_path, sha256="0", trunk_node=None, **vars(parts))
            assert describe(weights)
            described += 1
            require_whole(replace(weights, trunk_node=resnet_node(parts.trunk)))
        except CheckpointError as error:
            assert "\n" not in str(error)
    assert 50 < described < 950
