"""The trunk of a job that uses trained weights."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from omegaconf import MISSING, OmegaConf
from torch import nn

from ssl_platform.config.options import ImageJobOptions, Node, Whose
from ssl_platform.config.saved import config_of
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.data.decoding.pixels import AUTO, COLOURS
from ssl_platform.errors import CheckpointError
from ssl_platform.registry import TRUNKS
from ssl_platform.tasks import Task
from ssl_platform.zoo.weights import Weights, load_trunk, read_weights, unknown_trunk


@dataclass(frozen=True)
class TrunkOptions(ImageJobOptions):
    """Top-level keys of every job that looks at images through a trained trunk."""

    checkpoint: str
    allow_partial: bool
    trunk: Node
    weights: Whose | None = field(default=None, kw_only=True)


class TrunkTask(Task):
    """A job that looks at images through a trained trunk."""

    def complete(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """``trunk: null`` means the trunk of the checkpoint."""
        if cfg.get("checkpoint") in (None, MISSING):
            raise ValueError(
                "checkpoint: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>"
            )
        trunk = {} if cfg.get("trunk") else trunk_of(cfg)
        return pixels_of_run(cfg["checkpoint"], cfg.get("data"), trunk.get("trunk", {})) | trunk


def trunk_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The key ``trunk`` for the weights that a config names.

    Raises:
        ValueError: there are no such weights, they do not name their trunk, or it is of a plug-in
            that is not imported.
    """
    with as_problem():
        whose = cfg.get("weights") if cfg.get("weights") in get_args(Whose) else None
        weights = read_weights(cfg["checkpoint"], whose)
    if weights.trunk_node is None:
        raise ValueError(
            f"trunk=null: {weights.source} does not tell its whole architecture; name it, e.g. "
            "trunk=resnet18_small"
        )
    unknown = unknown_trunk(weights)
    if unknown is not None:
        raise ValueError(f"checkpoint={weights.source}: {unknown}")
    node = weights.trunk_node
    defaults = TRUNKS.schema(node["name"]).defaults  # of options that are younger than the run
    young = {key: defaults[key] for key in ("in_channels",) if key in defaults}
    return {"trunk": young | node}


def pixels_of_run(checkpoint: str, data: Any, trunk: Node) -> dict[str, Any]:
    """What a config leaves open of ``data``, as the run did that the weights are from.

    With it, the same values in a file become the same numbers as in the run: ``data.channels``,
    ``data.range``, and ``data.normalize`` where it is to be measured or of other channels.

    Args:
        checkpoint: the weights.
        data: of the config, plain values.
        trunk: of the weights, which say the channels where there is no run.
    """
    if not isinstance(data, Mapping):
        return {}
    before: dict[str, Any]
    try:
        trained: Any = OmegaConf.to_container(read_yaml(config_of(Path(checkpoint))))
        before = {"channels": COLOURS, **trained["data"]}
    except (OSError, LookupError, TypeError, ValueError):  # no run, or one without images
        before = {"channels": trunk.get("in_channels")}
    filled: dict[str, Any] = {}
    if data.get("channels") is None and isinstance(before["channels"], int):
        filled["data.channels"] = before["channels"]
    channels = filled.get("data.channels", data.get("channels"))
    value_range = before.get("range")
    if data.get("range") in (None, AUTO) and isinstance(value_range, list):
        is_of_channels = isinstance(value_range[0], list)
        if not is_of_channels or len(value_range) == channels:
            filled["data.range"] = value_range
    before_normalize = before.get("normalize")
    is_known = before_normalize is not None and channels is not None
    if is_known and _num_means(before_normalize) == channels != _num_means(data.get("normalize")):
        filled["data.normalize"] = before_normalize
    return filled


def _num_means(normalize: Any) -> int | None:
    means = normalize.get("mean") if isinstance(normalize, Mapping) else None
    return len(means) if isinstance(means, list) else None


@contextmanager
def as_problem() -> Iterator[None]:
    """While a config is checked, weights that cannot be used are a mistake in the config."""
    try:
        yield
    except CheckpointError as error:
        raise ValueError(f"checkpoint={error}") from error


@dataclass(frozen=True)
class TrainedTrunk:
    """A trunk with its weights, on the CPU, in eval mode."""

    module: nn.Module
    weights: Weights
    fingerprint: dict[str, str]  # of all that decides the features of an image

    @classmethod
    def open(cls, options: TrunkOptions) -> "TrainedTrunk":
        """The trunk that a config names.

        Raises:
            CheckpointError: the weights cannot be read or do not fit.
            ValueError: there can be no such trunk.
        """
        weights = read_weights(options.checkpoint, options.weights)
        try:
            module = random_trunk(options.trunk, options.seed)
        except ValueError as error:
            lines = str(error).splitlines()
            raise ValueError("\n".join(f"trunk.{line}" for line in lines)) from error
        load_trunk(module, weights, allow_partial=options.allow_partial)
        fingerprint = {
            "weights": weights.sha256,
            "trunk": json.dumps(without_default_channels(options.trunk), sort_keys=True),
        }
        if options.allow_partial:  # missing weights are random
            fingerprint["seed"] = str(options.seed)
        return cls(module, weights, fingerprint)


def without_default_channels(trunk: Node) -> Node:
    """A trunk's config as it was before it could say its channels: older features stay valid."""
    return {key: value for key, value in trunk.items() if (key, value) != ("in_channels", COLOURS)}


def random_trunk(node: Node, seed: int) -> nn.Module:
    """A trunk with random weights, in eval mode."""
    torch.manual_seed(seed)
    module: nn.Module = TRUNKS.build(node)
    return module.to(memory_format=torch.channels_last).eval()
