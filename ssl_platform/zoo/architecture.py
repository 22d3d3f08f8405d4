"""Find the config of a trunk or head from the names and shapes of its weights."""

import json
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from torch import Tensor

from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.resnet import ResNet
from ssl_platform.registry import TRUNKS

TRUNK_CONFIGS = CONFIG_DIR / "trunk"
RGB = 3  # channels
IMAGENET_STEM = {"stem_kernel": 7, "stem_stride": 2, "stem_pool": True}


def resnet_node(trunk: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The config of the `ResNet` with exactly these names and shapes.

    None when there is no such ResNet, or when its stem's kernel is not 7x7: weights do not show
    the stride and the pooling of other stems.
    """
    stem = trunk.get("conv1.weight")
    if stem is None or stem.shape[2:] != (7, 7):
        return None
    node = {
        "name": ResNet.__name__,
        "block": "bottleneck" if "layer1.0.conv3.weight" in trunk else "basic",
        "layers": [_num_blocks(trunk, stage) for stage in (1, 2, 3, 4)],
        "width": stem.shape[0],
        **IMAGENET_STEM,
        "in_channels": stem.shape[1],
    }
    try:
        with torch.device("meta"):
            state = TRUNKS.build(node).state_dict()
    except ValueError:
        return None
    fits = all(name in state and state[name].shape == value.shape for name, value in trunk.items())
    return node if fits else None


def _num_blocks(trunk: Mapping[str, Tensor], stage: int) -> int:
    return len({name.split(".")[1] for name in trunk if name.startswith(f"layer{stage}.")})


def head_node(head: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The config of the `PrototypeHead` with these tensors; None when there are none."""
    if not head:
        return None
    last = max(name for name in head if name.startswith("projection.") and name.endswith("weight"))
    prototypes = [name for name in head if name.startswith("prototypes.")]
    prototypes.sort(key=lambda name: int(name.split(".")[1]))
    return {
        "name": PrototypeHead.__name__,
        "hidden_dim": 0 if last == "projection.0.weight" else head["projection.0.weight"].shape[0],
        "out_dim": head[last].shape[0],
        "num_prototypes": [head[name].shape[0] for name in prototypes],
        "batch_norm": "projection.1.weight" in head,
    }


def trunk_option(node: Mapping[str, Any]) -> str:
    """What to type for a trunk: ``trunk=resnet50w2``, or options if no shipped file fits."""
    rest, channels = _without_channels(node), channels_of(node)
    more = f" trunk.in_channels={channels}" if channels != RGB else ""
    for path in sorted(TRUNK_CONFIGS.glob("*.yaml")):
        if _without_channels(yaml.safe_load(path.read_text())) == rest:
            return f"trunk={path.stem}{more}"
    return options_text("trunk.", rest) + more


def channels_of(node: Mapping[str, Any] | None) -> int:
    """Channels of the images that a trunk takes; three where its config does not say."""
    channels = (node or {}).get("in_channels")
    return channels if isinstance(channels, int) else RGB


def _without_channels(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "in_channels"}


def shipped_trunk(name: str) -> ResNet:
    """A new `ResNet` of the shipped config with that name, for images of three channels."""
    node = yaml.safe_load((TRUNK_CONFIGS / f"{name}.yaml").read_text())
    trunk: ResNet = TRUNKS.build(_without_channels(node))
    return trunk


def options_text(prefix: str, node: Mapping[str, Any]) -> str:
    """The options of a component as they are typed: ``trunk.width=64 trunk.layers=[3,4,6,3]``."""
    options = {key: value for key, value in node.items() if key != "name"}
    return " ".join(f"{prefix}{key}={_typed(value)}" for key, value in options.items())


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
