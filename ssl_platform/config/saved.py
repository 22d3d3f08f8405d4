"""The saved configs of runs: keys that are newer or gone, secrets, differences to another."""

import copy
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc
from yaml import YAMLError

from ssl_platform.config.moved import move_keys
from ssl_platform.config.options import DataOptions, TrainOptions, components, is_below
from ssl_platform.config.shipped import CONFIG_DIR, groups
from ssl_platform.config.source import PRIMARY, Source
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.console import SECRET_WORDS, STRUCK_OUT, without_secret_values
from ssl_platform.errors import ConfigError
from ssl_platform.schema import flat

logger = logging.getLogger(__name__)
SECRET = re.compile(SECRET_WORDS, re.IGNORECASE)

# keys of ``data`` that are newer than some runs, with what those runs did
YOUNGER_THAN_SOME_RUNS: dict[str, Any] = {
    field.name: field.default
    for field in fields(DataOptions)
    if field.default is not NO_DEFAULT and field.name != "path"
}
# keys that are gone, with the value that says what is always done now
RETIRED: dict[str, Any] = {"data.normalize_on": "device", "data.transform.augment_on": "workers"}


def _free_to_change(kind: type, prefix: str = "") -> Iterator[str]:
    """The keys of options that say so in their metadata."""
    for field in fields(kind):
        if field.metadata.get("free_to_change"):
            yield f"{prefix}{field.name}"
        elif isinstance(field.type, type) and is_dataclass(field.type):
            yield from _free_to_change(field.type, f"{prefix}{field.name}.")


# what may differ when a run is started again in its directory
FREE_TO_CHANGE = tuple(_free_to_change(TrainOptions))


def _retired_keys(cfg: DictConfig) -> Iterator[tuple[str, DictConfig, str]]:
    """The `RETIRED` keys that a config has, each with its section and its name there."""
    for key in RETIRED:
        section: Any = cfg
        *path, name = key.split(".")
        for part in path:
            section = section.get(part) if isinstance(section, DictConfig) else None
        if isinstance(section, DictConfig) and name in section:
            yield key, section, name


def drop_retired(cfg: DictConfig) -> list[str]:
    """Remove the `RETIRED` keys that ask for what is always done now; changes ``cfg``.

    Returns:
        One line for each that asks for something else.
    """
    problems = []
    for key, section, name in _retired_keys(cfg):
        if section[name] == RETIRED[key]:
            with open_dict(section):
                del section[name]
        else:
            problems.append(
                f"{key}={section[name]}: this option is gone, leave it out; it is always "
                f"{RETIRED[key]}"
            )
    return problems


def with_defaults(saved: Any) -> tuple[dict[str, Any], list[str]]:
    """Fill in today's defaults of keys that are newer than a saved config.

    These are the keys of every job and of its task. Parts and their components stay as they were
    saved, because today's default does not say what a component did then; for ``data`` it is known.

    Args:
        saved: plain values, references as written.

    Returns:
        A new config, and what was filled in, each as ``key=value``.

    Raises:
        ValueError: it is no config of a job.
    """
    task = saved.get("task") if isinstance(saved, Mapping) else None
    if not isinstance(task, Mapping) or not isinstance(task.get("name"), str):
        raise ValueError("it names no task")
    config = OmegaConf.create(saved)
    for _, section, name in _retired_keys(config):  # they decided how it trained, not what it is
        del section[name]
    move_keys(config)
    plain: Any = OmegaConf.to_container(config)
    filled, added = _filled(plain, _defaults_of(task["name"]))
    data = filled.get("data")
    if isinstance(data, Mapping) and "normalize" in data:
        filled["data"], inner = _filled(data, YOUNGER_THAN_SOME_RUNS, "data.")
        added += inner
    return filled, added


@cache
def _defaults_of(task: str) -> dict[str, Any]:
    """The defaults of a task's keys without its parts; of a plug-in's task, those of every job."""
    files = (f for f in groups()["task"] if _task_name(CONFIG_DIR / "task" / f"{f}.yaml") == task)
    file = next(files, None)
    overrides = ["~config", f"task={file}" if file else "~task"]
    composed: Any = OmegaConf.to_container(Source(CONFIG_DIR, PRIMARY, [], ())._compose(overrides))
    parts = groups().keys() - {"launch", "metrics"}  # which change nothing that was trained
    return {key: value for key, value in composed.items() if key not in parts}


def _task_name(path: Path) -> str | None:
    node: Any = OmegaConf.load(path)
    return (node.get("task") or {}).get("name")


def _filled(
    saved: Mapping[str, Any], defaults: Mapping[str, Any], where: str = ""
) -> tuple[dict[str, Any], list[str]]:
    filled, added = dict(saved), []
    for key, default in defaults.items():
        if key not in saved:
            if default != MISSING:
                filled[key] = default
                added.append(f"{where}{key}={default}")
        elif isinstance(saved[key], Mapping) and _is_section(default):
            filled[key], inner = _filled(saved[key], default, f"{where}{key}.")
            added += inner
    return filled, added


def _is_section(node: Any) -> bool:
    """Whether a node holds options, and not components by name."""
    return isinstance(node, Mapping) and not any(isinstance(v, Mapping) for v in node.values())


def without_secrets(cfg: DictConfig) -> DictConfig:
    """A copy without the values of keys with `SECRET_WORDS`; references stay as they are."""
    shown = copy.deepcopy(cfg)
    _strike_out(shown)
    return shown


def _strike_out(node: Any) -> None:
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if OmegaConf.is_config(node[key]):
            _strike_out(node[key])
        elif isinstance(node[key], str) and SECRET.search(str(key)):
            node[key] = STRUCK_OUT


@contextmanager
def unread_environment() -> Iterator[None]:
    """Leave references to the environment as they are written: a file may not read it."""

    def as_written(name: str, *_: Any) -> str:
        return f"${{oc.env:{name}}}"

    OmegaConf.register_new_resolver("oc.env", as_written, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def shown_config(path: Path) -> dict[str, Any]:
    """The saved config of a run as others may see it: plain values, no secrets.

    References are filled in, but those to the environment.
    """
    with unread_environment():
        return without_secret_values(OmegaConf.to_container(OmegaConf.load(path), resolve=True))


def differences(saved: Path, new: DictConfig, allowed: Sequence[str]) -> list[str]:
    """The differences between the config of a run and another one, one line per key.

    Args:
        saved: the run's YAML file.
        new: the config that it is to go on with.
        allowed: keys that may differ, in addition to those that always may.

    Raises:
        ConfigError: the file cannot be read.
    """
    has_images = "train" in (new.get("data") or {})
    newer = {f"data.{key}": value for key, value in YOUNGER_THAN_SOME_RUNS.items()}
    after = (newer if has_images else {}) | _flat(without_secrets(new))
    before = _defaults(new) | _saved_values(saved)
    return [
        f"{key}: {before.get(key, 'not set')} there, {after.get(key, 'not set')} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not is_below(key, [*FREE_TO_CHANGE, *allowed])
        and not _are_one_place(before.get(key), after.get(key))
    ]


def _are_one_place(before: Any, after: Any) -> bool:
    """Whether two values are paths of the same file or folder, as ``images`` and ``./images/``."""
    with suppress(OSError, ValueError):  # one does not exist, or is no path
        return all(isinstance(v, str) for v in (before, after)) and os.path.samefile(before, after)
    return False


def _defaults(cfg: DictConfig) -> dict[str, Any]:
    """The defaults of those options of components that a config sets, by dotted path.

    An older run, whose component did not have the option yet, did what the default says.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return {
        f"{where}.{option}": default
        for where, registry, node in components(plain)
        for option, default in registry.schema(node["name"]).defaults.items()
        if option in node
    }


def _saved_values(path: Path) -> dict[str, Any]:
    """The config of a run by dotted path, with today's defaults of newer keys.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        saved = read_yaml(path)
        filled, added = with_defaults(OmegaConf.to_container(saved))
        values = _flat(without_secrets(OmegaConf.create(filled)))
        asked = {key: section[name] for key, section, name in _retired_keys(saved)}
        values |= {key: value for key, value in asked.items() if value != RETIRED[key]}
    except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError([f"{path}: the config of a run, cannot be read ({reason})"]) from error
    if added:
        keys = ", ".join(added)
        logger.warning("%s is older than some keys, taken at their defaults: %s", path, keys)
    return values


def _flat(cfg: DictConfig) -> dict[str, Any]:
    """Plain values by dotted path, references filled in."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return flat(plain)


def config_of(run: Path) -> Path:
    """The config file of a run, given the run's directory or that of one of its checkpoints."""
    path = run / "config.yaml"
    is_checkpoint = run.parent.name == "checkpoints" and not path.exists()
    return run.parents[1] / path.name if is_checkpoint else path
