"""The extension points of the platform: one registry per kind of component.

``name:`` in YAML is the name of the class: ``loss: {name: SwAVLoss}`` builds ``SwAVLoss``. A
constructor takes first, by position, what the program hands in (``Registry.runtime``); all its
other parameters are the options that YAML sets.

A constructor that cannot work with what it is given raises ``ValueError``. Each line of the message
starts with the option at fault (``queue_length=9 ...``); it is shown to the user behind the place
of the component in the config.
"""

import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fvcore.common.registry import Registry as FvcoreRegistry

from ssl_platform.errors import blame, nearest
from ssl_platform.schema import Schema

COMPONENT_PACKAGES = [
    "models",
    "data",
    "losses",
    "optim",
    "hooks",
    "metrics",
    "loggers",
    "tasks",
    "launch",
]
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
PLUGIN_ENTRY_POINTS = "ssl_platform.plugins"


class Registry(FvcoreRegistry):
    """Component classes by name.

    Args:
        kind: what is registered, in the words of an error message ("trunk").
        runtime: names of the arguments that the program hands to the constructor, in order.
    """

    def __init__(self, kind: str, runtime: tuple[str, ...] = ()):
        super().__init__(kind)
        self.kind, self.runtime = kind, runtime

    def _do_register(self, name: str, obj: Any) -> None:
        first = self._obj_map.get(name)
        if first is not None:
            raise ValueError(
                f"{self.kind} {name!r} is registered twice: first by {first.__module__}, "
                f"now by {obj.__module__}; give one of them another class name"
            )
        super()._do_register(name, obj)

    def names(self) -> list[str]:
        """Those of all registered components, sorted."""
        return sorted(name for name, _ in self)

    def schema(self, name: str) -> Schema:
        """Options of component ``name``: its constructor's parameters after the runtime ones."""
        return _schema(name, self.get(name), len(self.runtime))

    def problems(self, node: Mapping[str, Any], *, where: str) -> list[str]:
        """What is wrong with a config node: its name and its options, one line each."""
        name = node.get("name")
        if name is None:
            return [f"{where}.name: which {self.kind}? {nearest('', self.names())}"]
        if name not in self.names():
            return [f"{where}.name={name}: no such {self.kind}; {nearest(str(name), self.names())}"]
        problem = self._problem_of_constructor(name)
        if problem:
            return [f"{where}: {problem}"]
        return self.schema(name).problems(_options(node), where=where)

    def _problem_of_constructor(self, name: str) -> str | None:
        """What is wrong with a constructor: it takes what the program hands in, then options."""
        try:
            parameters = _parameters(self.get(name))
        except (TypeError, ValueError) as error:
            return f"{name} tells no signature ({error}); write its __init__ in Python"
        handed = ", ".join(self.runtime)
        places = [p for p in parameters if p.kind in BY_POSITION]
        is_short = len(places) < len(self.runtime)
        if is_short and all(p.kind != p.VAR_POSITIONAL for p in parameters):
            return (
                f"the constructor of {name} has to take {handed} by position, then its options: "
                f"def __init__(self, {handed}, *, ...)"
            )
        hidden = [p.name for p in places[len(self.runtime) :] if p.kind == p.POSITIONAL_ONLY]
        if hidden:
            return (
                f"the constructor of {name} takes {', '.join(hidden)} by position only, where YAML "
                "sets options by name: write them behind *"
            )
        try:
            self.schema(name)
        except Exception as error:  # of pydantic
            return f"the constructor of {name} has an annotation that is no type ({blame(error)})"
        return None

    def build(self, node: Mapping[str, Any], *runtime: Any) -> Any:
        """Construct the component that ``node`` names: its other keys are options.

        Raises:
            ValueError: an option is unknown, missing, of another type, or refused by the component.
        """
        options = self.schema(node["name"]).convert(_options(node))
        return self.get(node["name"])(*runtime, **options)


@cache  # by the class itself: a plugin of another test may register one of the same name
def _schema(name: str, component: Any, num_runtime: int) -> Schema:
    return Schema(name, _options_of(_parameters(component), num_runtime))


def _parameters(component: Any) -> list[inspect.Parameter]:
    """Those of a constructor, annotations that are text looked up where that can be done."""
    try:
        return list(inspect.signature(component, eval_str=True).parameters.values())
    except (NameError, SyntaxError, AttributeError):  # a name that only type checkers import
        parameters = inspect.signature(component).parameters.values()
        empty = inspect.Parameter.empty
        return [p.replace(annotation=empty) for p in parameters]


def _options_of(parameters: list[inspect.Parameter], num_runtime: int) -> list[inspect.Parameter]:
    """Those that YAML sets, and ``**`` where there is one; ``*args`` takes what is handed in."""
    places = [p for p in parameters if p.kind in BY_POSITION]
    return [p for p in parameters if p not in places[:num_runtime] and p.kind != p.VAR_POSITIONAL]


def _options(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "name"}


TRUNKS = Registry("trunk")
HEADS = Registry("head", runtime=("in_dim",))
TEACHERS = Registry("teacher", runtime=("student", "num_crops"))
LOSSES = Registry("loss", runtime=("model", "data"))
DATASETS = Registry("dataset")
TRANSFORMS = Registry("transform")
CROP_OPS = Registry("crop op")
OPTIMIZERS = Registry("optimizer", runtime=("params",))
SCHEDULES = Registry("schedule", runtime=("base", "num_epochs", "steps_per_epoch"))
HOOKS = Registry("hook")
METRICS = Registry("metric")
LOGGERS = Registry("logger")
TASKS = Registry("task")
LAUNCHERS = Registry("launcher")
WRITERS = Registry("writer")  # functions of weights and the path of a file


def load_components(plugins: Iterable[str] = ()) -> None:
    """Import every component module, so that each registers itself.

    Args:
        plugins: importable modules outside the package; a package is imported with its submodules.
            The working directory is searched too. Installed packages may also announce themselves
            by an entry point of the group ``ssl_platform.plugins``.

    Raises:
        ImportError: a plugin does not exist or fails to import.
        ValueError: two components of one kind have the same name.
    """
    for package in COMPONENT_PACKAGES:
        _import_package(f"ssl_platform.{package}")
    plugins = [*plugins]
    if plugins and str(Path.cwd()) not in sys.path:  # else nothing there is to be imported
        sys.path.append(str(Path.cwd()))
    for plugin in (*(entry.value for entry in entry_points(group=PLUGIN_ENTRY_POINTS)), *plugins):
        try:
            _import_package(plugin)
        except (ImportError, ValueError):
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the code of others does, sys.exit() included
            place = traceback.extract_tb(error.__traceback__)[-1]
            file, line = place.filename, place.lineno
            if isinstance(error, SyntaxError):
                file, line = error.filename or file, error.lineno
            reason = f"{type(error).__name__}: {error}"
            raise ImportError(f"{file}, line {line}: {reason}") from error


def is_module_name(value: Any) -> bool:
    """Whether this can be the name of a module, as in ``import a.b``."""
    return isinstance(value, str) and all(part.isidentifier() for part in value.split("."))


def _import_package(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}."):
        if not module.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(module.name)
