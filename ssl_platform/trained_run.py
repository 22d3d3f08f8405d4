"""A run that was trained before: its options, its model, and what its loss had come to."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from ssl_platform import checkpoint
from ssl_platform.build import JobOptions, TrainOptions, build_model, options_of
from ssl_platform.config import with_defaults
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import TRANSFORMS, load_components

logger = logging.getLogger(__name__)

READ_ERRORS = (OSError, ValueError, KeyError, OmegaConfBaseException, YAMLError)


@dataclass(frozen=True)
class TrainedRun:
    options: TrainOptions
    checkpoint: Path  # the directory of one checkpoint
    state: dict[str, Any]  # what all ranks share

    @classmethod
    def open(cls, path: str) -> "TrainedRun":
        """Read a run's directory, with its latest checkpoint, or one of its checkpoints.

        Args:
            path: ``runs/<name>`` or ``runs/<name>/checkpoints/step_00000500``.

        Raises:
            ValueError: there is no such run, or it cannot be read; the message begins with
                ``checkpoint=``.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ValueError(
                f"checkpoint={path}: no such directory (working directory: {Path.cwd()}); give "
                "that of a run, runs/<name>"
            )
        run = folder.parents[1] if folder.parent.name == "checkpoints" else folder
        config = run / "config.yaml"
        if not config.is_file():
            raise ValueError(f"checkpoint={path}: not the directory of a run, {config} is missing")
        try:
            chosen = _whole(folder) if run != folder else checkpoint.latest(run)
            if chosen is None:
                raise ValueError(f"checkpoint={path}: this run has saved no checkpoint yet")
            state = checkpoint.read_shared(chosen)
        except checkpoint.CheckpointError as error:
            raise ValueError(f"checkpoint={path}: {error}") from error
        try:
            options = _saved_options(config)
        except ImportError as error:
            raise ValueError(
                f"checkpoint={path}: a plug-in of {config} cannot be imported ({error}); start in "
                "its directory, or set PYTHONPATH"
            ) from error
        except READ_ERRORS as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"checkpoint={path}: {config} cannot be read ({reason})") from error
        if not isinstance(options, TrainOptions):
            raise ValueError(f"checkpoint={path}: not a training, but {options.task['name']}")
        return cls(options, chosen, state)

    def model(self) -> SSLModel:
        """The trained model, on the CPU, in eval mode."""
        sizes = TRANSFORMS.build(self.options.data.transform).crop_sizes
        model = build_model(self.options, sizes[0])
        model.load_state_dict(self.state["model"])
        return model.to(memory_format=torch.channels_last).eval()

    @property
    def assignments(self) -> Tensor | None:
        """(sets of prototypes, num_samples) labels of the latest epoch, see `Loss.assignments`."""
        return self.state["loss"].get("assignments")


def _saved_options(config: Path) -> JobOptions:
    """The options of a run, a key that is younger than it at its default."""
    filled, keys = with_defaults(OmegaConf.to_container(OmegaConf.load(config)))
    load_components(filled["plugins"])
    if keys:
        told = ", ".join(keys)
        logger.info("%s is older than some keys, taken at their defaults: %s", config, told)
    return options_of(OmegaConf.create(filled))


def _whole(folder: Path) -> Path:
    checkpoint.verify(folder)
    return folder
