"""Open a run that was trained before: its options, its model and the state of its loss."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from ssl_platform.config.options import TrainOptions, Whose, components, options_of
from ssl_platform.config.saved import unread_environment, with_defaults
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.engine import checkpoint
from ssl_platform.engine.build import Builder
from ssl_platform.errors import CheckpointError
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.teacher import TEACHER
from ssl_platform.registry import load_components

logger = logging.getLogger(__name__)

READ_ERRORS = (OSError, ValueError, KeyError, OmegaConfBaseException, YAMLError)


class NetworkState(NamedTuple):
    """The weights of one network of a run, under the names of a model without a teacher."""

    whose: str  # student or teacher; empty where there is no teacher
    state: dict[str, Any]
    prefix: str  # of their names in the run
    others: list[str]  # names in the run that are not among them

    @classmethod
    def of(cls, state: Mapping[str, Any], whose: Whose | None, *, evaluated: Any) -> "NetworkState":
        """Choose from the model's state in a checkpoint.

        Args:
            whose: None for those that the run evaluates.
            evaluated: what its config says of that.

        Raises:
            ValueError: the run has no teacher.
        """
        of_teacher = {name: v for name, v in state.items() if str(name).startswith(f"{TEACHER}.")}
        of_student = {name: v for name, v in state.items() if name not in of_teacher}
        whose = whose or ("teacher" if evaluated == "teacher" else "student")
        if whose == "student":
            return cls(whose if of_teacher else "", of_student, "", list(of_teacher))
        if not of_teacher:
            raise ValueError("weights=teacher: this run has no teacher, which teacher=ema trains")
        networks = tuple(f"{TEACHER}.{part}." for part in ("trunk", "heads"))
        own = {name: v for name, v in of_teacher.items() if name.startswith(networks)}
        others = [name for name in state if name not in own]
        own = {name.removeprefix(f"{TEACHER}."): value for name, value in own.items()}
        return cls(whose, own, f"{TEACHER}.", others)


@dataclass(frozen=True)
class SavedRun:
    """The contents of a run's directory, read as data, so that its author need not be trusted.

    Attributes:
        config: plain values with references filled in, except those to the environment.
        checkpoint: the directory of one checkpoint.
        state: the state that all ranks share; ``model`` is a mapping.
        path: as the user typed it.
    """

    config: dict[str, Any]
    checkpoint: Path
    state: dict[str, Any]
    path: str = ""

    @classmethod
    def open(cls, path: str) -> "SavedRun":
        """Read a run's directory, with its latest checkpoint, or one of its checkpoints.

        Args:
            path: ``runs/<name>`` or ``runs/<name>/checkpoints/step_00000500``.

        Raises:
            ValueError: there is no such run, or it cannot be read; the message begins with
                ``checkpoint=``.
        """
        with _naming(path), unread_environment():
            config, chosen, state = _read(Path(path))
            return cls(_plain(config), chosen, state, path)

    def network(self, whose: Whose | None) -> NetworkState:
        """The student's or the teacher's weights; None for those that the run evaluates.

        Raises:
            ValueError: see `NetworkState.of`; the message begins with ``checkpoint=``.
        """
        with _naming(self.path):
            evaluated = self.config.get("evaluate")
            return NetworkState.of(self.state["model"], whose, evaluated=evaluated)


@dataclass(frozen=True)
class TrainedRun:
    """A run whose components are built again, by the classes that are registered.

    Its own plug-ins are not imported: they are the code of whoever made the directory.

    Attributes:
        options: its config, checked.
        checkpoint: the directory of one checkpoint.
        state: the state that all ranks share.
        path: as the user typed it.
    """

    options: TrainOptions
    checkpoint: Path
    state: dict[str, Any]
    path: str = ""

    @classmethod
    def open(cls, path: str) -> "TrainedRun":
        """As `SavedRun.open`; also checks the options' types.

        Raises:
            ValueError: as there, or the run was no training.
        """
        load_components()
        with _naming(path):
            config, chosen, state = _read(Path(path))
            options = options_of(_plain(config))
            if not isinstance(options, TrainOptions):
                raise ValueError(f"not a training, but {options.task['name']}")
            return cls(options, chosen, state, path)

    def require(self, *places: str) -> None:
        """Raise unless the components at these places of its config can be built.

        Raises:
            ValueError: one cannot, or is of a plug-in that has not been imported; the message
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

    def network(self, whose: Whose | None = None) -> NetworkState:
        """As `SavedRun.network`."""
        with _naming(self.path):
            return NetworkState.of(self.state["model"], whose, evaluated=self.options.evaluate)

    def model(self, whose: Whose | None = None) -> SSLModel:
        """The trained trunk and heads, on the CPU, in eval mode.

        Args:
            whose: see `network`.

        Raises:
            ValueError: see `require` and `network`; or the weights are of another model.
        """
        self.require("trunk", "heads", "data.transform")
        options = replace(self.options, teacher=None)  # its weights fit the same trunk and heads
        model = Builder(options, device=torch.device("cpu"), world_size=1).model
        state = self.network(whose).state
        with _naming(self.path):
            model.load_state_dict(state)
        return model.eval()

    @property
    def assignments(self) -> Tensor | None:
        """(sets of prototypes, num_samples) labels of the latest epoch, see `Loss.assignments`."""
        return self.state["loss"].get("assignments")


def plugins_hint(plugins: Sequence[str]) -> str:
    """What to type if a component of a run is unknown, because its plug-ins are not imported."""
    if not plugins:
        return ""
    named = f"plugins=[{','.join(plugins)}]"
    return (
        f"; the run was trained with {named}, code that is imported only where your own command "
        f"says so: where you trust it, add {named}"
    )


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put what the user typed in front of what is wrong with it, in one line."""
    try:
        yield
    except (ValueError, KeyError, RuntimeError, TypeError, CheckpointError) as error:
        raise ValueError(f"checkpoint={path}: {_one_line(error)}") from error


def _read(folder: Path) -> tuple[Path, Path, dict[str, Any]]:
    """The config file, the checkpoint's directory, and the state in it."""
    if not folder.is_dir():
        raise ValueError(
            f"no such directory (working directory: {Path.cwd()}); give that of a run, runs/<name>"
        )
    run = folder.parents[1] if folder.parent.name == "checkpoints" else folder
    config = run / "config.yaml"
    if not config.exists():
        raise ValueError(f"not the directory of a run, {config} is missing")
    chosen = folder if run != folder else checkpoint.latest(run)
    if chosen is None:
        raise ValueError("this run has saved no checkpoint yet")
    if run != folder:
        checkpoint.verify(folder)
    state = checkpoint.read_shared(chosen)
    if not isinstance(state, dict) or not isinstance(state.get("model"), Mapping):
        raise ValueError(f"{chosen / checkpoint.SHARED} holds no model")
    return config, chosen, state


def _plain(config: Path) -> dict[str, Any]:
    """The config of a run with references filled in; keys newer than the run have defaults."""
    try:
        filled, keys = with_defaults(OmegaConf.to_container(read_yaml(config)))
        plain: Any = OmegaConf.to_container(OmegaConf.create(filled), resolve=True)
    except READ_ERRORS as error:
        raise ValueError(f"{config} cannot be read ({_one_line(error)})") from error
    if keys:
        names = ", ".join(keys)
        logger.info("%s is older than some keys, taken at their defaults: %s", config, names)
    return dict(plain)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
