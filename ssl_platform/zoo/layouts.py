"""The names that other projects give to the same weights, as tables with a rule for each key.

A layout is recognised by its keys alone. A key without a rule is an error, so that no weight is
left out unseen. Sources of the layouts: the released files and the model classes of
facebookresearch/swav, facebookresearch/vissl, torchvision, timm, lightly and solo-learn.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_platform.errors import CheckpointError

Part = Literal["trunk", "head", "classifier", "unused"]

# keys of the dictionaries that may lie around a state dict, from the outside to the inside
NESTS = ("state_dict", "classy_state_dict", "base_model", "model_state_dict", "model")
DEEPEST, MOST_KEYS = 20, 100_000  # of dictionaries in one another; the largest models have 5,000
WRAPPERS = re.compile(r"(?:module\.|_orig_mod\.)+")  # DistributedDataParallel, torch.compile
RESNET = r"((?:conv1|bn1|layer[1-4]\.\d+)\..+)"
# children of a torchvision ResNet, as nn.Sequential numbers them; 2, 3 and 8 have no weights
CHILDREN = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}


@dataclass(frozen=True)
class Rule:
    """Where the keys that ``pattern`` matches in full belong.

    Attributes:
        name: the key under this platform's names, with the groups of the match; for ``unused``,
            what the key is, in words. A group called ``owner`` is the name of one of several
            heads: the first is read, the others are unused.
    """

    pattern: str
    part: Part
    name: str


@dataclass(frozen=True)
class Layout:
    """The rules for all keys that the files of one project may have."""

    format: str
    rules: tuple[Rule, ...]

    def rule(self, key: str) -> tuple[Rule, re.Match[str]] | None:
        """The first rule that matches a key, and the match; None if the key is unknown."""
        for rule in self.rules:
            match = re.fullmatch(rule.pattern, key)
            if match:
                return rule, match
        return None


LAYOUTS = (  # if several fit equally well, the first is taken
    Layout(
        "vissl",
        (
            Rule(rf"(?:trunk\.)?(?:base_model\.)?_feature_blocks\.{RESNET}", "trunk", r"\1"),
            Rule(r"heads\.(?P<owner>\d+)\.projection_head\.(\d+\..+)", "head", r"projection.\2"),
            Rule(
                r"heads\.(?P<owner>\d+)\.prototypes(\d+)\.weight", "head", r"prototypes.\2.weight"
            ),
            Rule(r"heads\.\d+\..+", "unused", "a head without prototypes"),
        ),
    ),
    Layout(
        "ssl_platform",
        (
            Rule(r"trunk\.(.+)", "trunk", r"\1"),
            Rule(r"heads\.(?P<owner>\w+)\.((?:projection|prototypes)\.\d+\..+)", "head", r"\2"),
            Rule(r"heads\.(?P<owner>\w+)\.linear\.(weight|bias)", "classifier", r"\2"),
            Rule(r"heads\.(?P<owner>\w+)\.(batch_norm\..+)", "classifier", r"\2"),
            Rule(r"heads\..+", "unused", "a head without prototypes"),
            Rule(r"teacher\..+", "unused", "a teacher, which is read from the run's directory"),
        ),
    ),
    Layout(
        "torchvision",  # and timm, whose ResNets have the same names
        (
            Rule(RESNET, "trunk", r"\1"),
            Rule(r"fc\.(weight|bias)", "classifier", r"\1"),
        ),
    ),
    Layout(
        "swav",
        (
            Rule(RESNET, "trunk", r"\1"),
            Rule(r"projection_head\.(\d+\..+)", "head", r"projection.\1"),
            Rule(r"projection_head\.(weight|bias)", "head", r"projection.0.\1"),
            Rule(r"prototypes\.weight", "head", "prototypes.0.weight"),
            Rule(r"prototypes\.prototypes(\d+)\.weight", "head", r"prototypes.\1.weight"),
            Rule(r"linear\.(weight|bias)", "classifier", r"\1"),
            Rule(r"bn\.(.+)", "classifier", r"batch_norm.\1"),
        ),
    ),
    Layout(
        "lightly",
        (
            Rule(rf"backbone\.{RESNET}", "trunk", r"\1"),
            *(
                Rule(rf"backbone\.{number}\.(.+)", "trunk", rf"{child}.\1")
                for number, child in CHILDREN.items()
            ),
            Rule(r"projection_head\.layers\.(\d+\..+)", "head", r"projection.\1"),
            Rule(r"prototypes\.heads\.(\d+\..+)", "head", r"prototypes.\1"),
            Rule(r"online_classifier\..+", "unused", "classifier that watched the training"),
            Rule(r"(?:queues|criterion|start_queue)\S*", "unused", "state of the loss"),
        ),
    ),
    Layout(
        "solo-learn",
        (
            Rule(rf"(?:backbone|encoder)\.{RESNET}", "trunk", r"\1"),
            Rule(r"projector\.(\d+\..+)", "head", r"projection.\1"),
            Rule(r"prototypes\.weight(?:_v)?", "head", "prototypes.0.weight"),
            Rule(r"prototypes\.weight_g", "unused", "length of the prototypes, always 1"),
            Rule(r"classifier\.(weight|bias)", "classifier", r"\1"),
            Rule(r"momentum_\w+\..+", "unused", "a momentum copy"),
            Rule(r"queue\S*", "unused", "state of the loss"),
        ),
    ),
    Layout(
        "lightning",  # a LightningModule around a torchvision ResNet
        (
            Rule(rf"(?:model|net|resnet|encoder)\.{RESNET}", "trunk", r"\1"),
            Rule(r"(?:model|net|resnet|encoder)\.fc\.(weight|bias)", "classifier", r"\1"),
        ),
    ),
    Layout(
        "timm",  # what is no ResNet there, under the names of `TimmTrunk`
        (
            Rule(r"(?:head|head\.fc|classifier|fc)\.(weight|bias)", "classifier", r"\1"),
            Rule(
                r"((?:cls_token|reg_token|dist_token|pos_embed|patch_embed|blocks|stages|stem|norm|"
                r"norm_pre|fc_norm|head\.norm|head\.pre_logits|layers|conv_stem|conv_head|bn[12]|"
                r"features|final_conv)\b.*)",
                "trunk",
                r"model.\1",
            ),
        ),
    ),
)


@dataclass
class Parts:
    """The keys of a file by what they are; see `Weights`."""

    format: str
    trunk: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    classifier: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)  # key in the file, by trunk.conv1.weight


def sort_keys(content: Mapping[str, Any]) -> Parts:
    """Find the state dict in what a file holds, recognise its layout, and sort its keys.

    Raises:
        CheckpointError: no layout, or a key that the layout does not know.
    """
    state, beside = _state_dict(content)
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"holds no tensors; its keys are {_first_few(content)}")
    layout = max(LAYOUTS, key=lambda layout: sum(bool(layout.rule(_bare(key))) for key in tensors))
    parts = Parts(layout.format, unused=beside)
    parts.unused.update({key: "a value, no tensor" for key in state if key not in tensors})
    unknown = [key for key in tensors if layout.rule(_bare(key)) is None]
    if len(unknown) == len(tensors):
        raise CheckpointError(
            f"its keys are in no known layout: {_first_few(tensors)}; known are "
            f"{', '.join(known.format for known in LAYOUTS)}"
        )
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of its {len(tensors)} keys are unknown in the layout of "
            f"{layout.format}, which it comes nearest to: {_first_few(unknown)}"
        )
    _sort(layout, tensors, parts)
    _settle_head(parts)
    _settle_classifier(parts)
    return parts


def _state_dict(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The innermost state dict, flat, and the keys beside it in the dictionaries around it."""
    beside: dict[str, str] = {}
    path, depth = "", 0
    while nest := next((key for key in NESTS if isinstance(content.get(key), Mapping)), None):
        beside |= {f"{path}{key}": "beside the weights" for key in content if key != nest}
        content, path, depth = content[nest], f"{path}{nest}.", depth + 1
        _require_depth(depth)
    return dict(_flat(content, "", 0, itertools.count(1))), beside


def _flat(
    content: Mapping[str, Any], prefix: str, depth: int, count: "itertools.count[int]"
) -> Iterator[tuple[str, Any]]:
    """Keys and values of nested mappings. One that lies in several places counts each time."""
    _require_depth(depth)
    for key, value in content.items():
        if next(count) > MOST_KEYS:
            raise CheckpointError(f"has more than {MOST_KEYS:,} keys")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.", depth + 1, count)
        else:
            yield f"{prefix}{key}", value


def _require_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise CheckpointError(f"its dictionaries lie more than {DEEPEST} deep in one another")


def _bare(key: str) -> str:
    return WRAPPERS.sub("", key, count=1) if WRAPPERS.match(key) else key


def _sort(layout: Layout, tensors: Mapping[str, Tensor], parts: Parts) -> None:
    owners: dict[str, str] = {}
    for key, tensor in tensors.items():
        rule_and_match = layout.rule(_bare(key))
        assert rule_and_match is not None  # the caller has checked
        rule, match = rule_and_match
        owner = match.groupdict().get("owner", "")
        if rule.part == "unused":
            parts.unused[key] = rule.name
        elif owners.setdefault(rule.part, owner) != owner:
            parts.unused[key] = f"another {rule.part}; {owners[rule.part]!r} is read"
        else:
            name = match.expand(rule.name)
            first = parts.origin.setdefault(f"{rule.part}.{name}", key)
            if first != key:
                raise CheckpointError(f"both {first} and {key} would be {rule.part}.{name}")
            getattr(parts, rule.part)[name] = tensor


def _settle_head(parts: Parts) -> None:
    """Give the head exactly the keys of a `PrototypeHead`; move it to unused if it is none."""
    head = parts.head
    if set(head) == {"projection.0.weight", "projection.0.bias"}:  # SwAV's semi-supervised one
        for name in [*head]:
            short = name.removeprefix("projection.0.")
            parts.classifier[short] = head.pop(name)
            parts.origin[f"classifier.{short}"] = parts.origin.pop(f"head.{name}")
    reason = _no_prototype_head(head)
    if reason:
        _drop(parts, "head", reason)
    elif "projection.0.bias" not in head:  # lightly has none before a batch norm
        weight = head["projection.0.weight"]
        head["projection.0.bias"] = torch.zeros(weight.shape[0], dtype=weight.dtype)


def _settle_classifier(parts: Parts) -> None:
    """Keep a classifier that is one linear layer; move any other to unused."""
    classifier = parts.classifier
    is_whole = classifier.keys() == {"weight", "bias"} and classifier["weight"].ndim == 2
    if not is_whole or classifier["bias"].shape != classifier["weight"].shape[:1]:
        _drop(parts, "classifier", "a classifier that is more or less than a linear layer")


def _drop(parts: Parts, part: Part, why: str) -> None:
    tensors: dict[str, Tensor] = getattr(parts, part)
    parts.unused.update({parts.origin.pop(f"{part}.{name}"): why for name in tensors})
    tensors.clear()


def _no_prototype_head(head: Mapping[str, Tensor]) -> str | None:
    """Why a head with these tensors is no `PrototypeHead`."""
    prototypes = [name for name in head if name.startswith("prototypes.")]
    layers = {name.split(".")[1] for name in head if name.startswith("projection.")}
    linear = [f"projection.{number}.weight" for number in layers - {"1"}]
    if not prototypes:
        return "a projection without prototypes"
    if any(name.endswith(".bias") for name in prototypes):
        return "a head whose prototypes have a bias, which moves its clusters"
    if layers not in ({"0"}, {"0", "2"}, {"0", "1", "3"}):
        return "a head of other layers than linear, batch norm, ReLU, linear"
    if any(name not in head or head[name].ndim != 2 for name in linear + prototypes):
        return "a head without all of its matrices"
    return None


def _first_few(keys: Any) -> str:
    keys = [str(key) for key in keys]
    return ", ".join(keys[:3]) + (f", ... ({len(keys)})" if len(keys) > 3 else "") or "none"
