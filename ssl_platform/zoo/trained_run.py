"""A run that was trained before: its options, its model, and what its loss had come to."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc
from torch import Tensor
from yaml import YAMLError

from ssl_platform.config.options import TrainOptions, components, options_of
from ssl_platform.config.saved import with_defaults
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.engine import checkpoint
from ssl_platform.engine.build import Builder
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import load_components

logger = logging.getLogger(__name__)

READ_ERRORS = (OSError, ValueError, KeyError, OmegaConfBaseException, YAMLError)


@dataclass(frozen=True)
class SavedRun:
    """What lies in a run's directory, read as data: nobody need vouch for it.

    Attributes:
        config: plain values, references filled in; those to the environment are as written.
        checkpoint: the directory of one checkpoint.
        state: what all ranks share; ``model`` is a mapping.
    """

    config: dict[str, Any]
    checkpoint: Path
    state: dict[str, Any]

    @classmethod
    def open(cls, path: str) -> "SavedRun":
        """Read a run's directory, with its latest checkpoint, or one of its checkpoints.

        Args:
            path: ``runs/<name>`` or ``runs/<name>/checkpoints/step_00000500``.

        Raises:
            ValueError: there is no such run, or it cannot be read; the message begins with
                ``checkpoint=``.
        """
        config, chosen, state = _read(path)
        with _unread_environment():
            return cls(_plain(path, config), chosen, state)


@dataclass(frozen=True)
class TrainedRun:
    """A run that is used as it was trained, by the components that are loaded.

    Its own plug-ins are not imported: they are the code of whoever made the directory.
    """

    options: TrainOptions
    checkpoint: Path  # the directory of one checkpoint
    state: dict[str, Any]  # what all ranks share
    path: str = ""  # as it was asked for

    @classmethod
    def open(cls, path: str) -> "TrainedRun":
        """As `SavedRun.open`; its options are held against their types.

        Raises:
            ValueError: as there, or it was no training.
        """
        config, chosen, state = _read(path)
        load_components()
        plain = _plain(path, config)
        try:
            options = options_of(plain)
        except (ValueError, KeyError) as error:
            raise ValueError(f"checkpoint={path}: {_one_line(error)}") from error
        if not isinstance(options, TrainOptions):
            raise ValueError(f"checkpoint={path}: not a training, but {options.task['name']}")
        return cls(options, chosen, state, path)

    def require(self, *places: str) -> None:
        """Raise unless the components at these places of its config can be built.

        Raises:
            ValueError: they cannot, or are of a plug-in that has not been imported; the message
                begins with ``checkpoint=``.
        """
        options = self.options
        nodes = {"trunk": options.trunk, "heads": options.heads, "data": vars(options.data)}
        problems = [
            problem
            for where, registry, node in components(nodes)
            if where.startswith(places)
            for problem in registry.problems(node, where=where)
        ]
        if problems:
            hint = plugins_hint(options.plugins)
            raise ValueError("\n".join(f"checkpoint={self.path}: {p}{hint}" for p in problems))

    def model(self) -> SSLModel:
        """The trained model, on the CPU, in eval mode.

        Raises:
            ValueError: see `require`; or its weights are of another model.
        """
        self.require("trunk", "heads", "data.transform")
        model = Builder(self.options, device=torch.device("cpu"), world_size=1).model
        try:
            model.load_state_dict(self.state["model"])
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"checkpoint={self.path}: {_one_line(error)}") from error
        return model.eval()

    @property
    def assignments(self) -> Tensor | None:
        """(sets of prototypes, num_samples) labels of the latest epoch, see `Loss.assignments`."""
        return self.state["loss"].get("assignments")


def plugins_hint(plugins: Sequence[str]) -> str:
    """What to type where a component of a run is not there: its plug-ins are somebody's code."""
    if not plugins:
        return ""
    named = f"plugins=[{','.join(plugins)}]"
    return (
        f"; the run was trained with {named}, code that is imported only where your own command "
        f"says so: where you trust it, add {named}"
    )


def _read(path: str) -> tuple[Path, Path, dict[str, Any]]:
    """The file of the config, the checkpoint, and what it holds."""
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(
            f"checkpoint={path}: no such directory (working directory: {Path.cwd()}); give "
            "that of a run, runs/<name>"
        )
    run = folder.parents[1] if folder.parent.name == "checkpoints" else folder
    config = run / "config.yaml"
    if not config.exists():
        raise ValueError(f"checkpoint={path}: not the directory of a run, {config} is missing")
    try:
        chosen = _whole(folder) if run != folder else checkpoint.latest(run)
        if chosen is None:
            raise ValueError(f"checkpoint={path}: this run has saved no checkpoint yet")
        state = checkpoint.read_shared(chosen)
    except checkpoint.CheckpointError as error:
        raise ValueError(f"checkpoint={path}: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), Mapping):
        raise ValueError(f"checkpoint={path}: {chosen / checkpoint.SHARED} holds no model")
    return config, chosen, state


def _plain(path: str, config: Path) -> dict[str, Any]:
    """The config of a run, references filled in, a key that is younger than it at its default."""
    try:
        filled, keys = with_defaults(OmegaConf.to_container(read_yaml(config)))
        plain: Any = OmegaConf.to_container(OmegaConf.create(filled), resolve=True)
    except READ_ERRORS as error:
        raise ValueError(
            f"checkpoint={path}: {config} cannot be read ({_one_line(error)})"
        ) from error
    if keys:
        told = ", ".join(keys)
        logger.info("%s is older than some keys, taken at their defaults: %s", config, told)
    return dict(plain)


@contextmanager
def _unread_environment() -> Iterator[None]:
    """References to the environment stay as they are written: it is none of a file's business."""

    def as_written(name: str, *_: Any) -> str:
        return f"${{oc.env:{name}}}"

    OmegaConf.register_new_resolver("oc.env", as_written, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _whole(folder: Path) -> Path:
    checkpoint.verify(folder)
    return folder
