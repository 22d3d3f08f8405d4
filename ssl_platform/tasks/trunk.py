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
from ssl_platform.data.decoding.pixels import AUTO
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
        filled = range_of_run(cfg["checkpoint"], cfg.get("data"))
        if not cfg.get("trunk"):
            filled |= trunk_of(cfg)
        return filled


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
    return {"trunk": weights.trunk_node}


def range_of_run(checkpoint: str, data: Any) -> dict[str, Any]:
    """The key ``data.range`` of the run that weights are from, if the config leaves it open.

    With it, the same values in a file become the same pixels as in the run.
    """
    if not isinstance(data, Mapping) or data.get("range") not in (None, AUTO):
        return {}
    try:
        trained: Any = OmegaConf.to_container(read_yaml(config_of(Path(checkpoint))))
        value_range = trained["data"]["range"]
    except (OSError, LookupError, TypeError, ValueError):  # no run, or one without images or range
        return {}
    return {"data.range": value_range} if isinstance(value_range, list) else {}


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
            "trunk": json.dumps(options.trunk, sort_keys=True),
        }
        if options.allow_partial:  # missing weights are random
            fingerprint["seed"] = str(options.seed)
        return cls(module, weights, fingerprint)


def random_trunk(node: Node, seed: int) -> nn.Module:
    """A trunk with random weights, in eval mode."""
    torch.manual_seed(seed)
    module: nn.Module = TRUNKS.build(node)
    return module.to(memory_format=torch.channels_last).eval()
