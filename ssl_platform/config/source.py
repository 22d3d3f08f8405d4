"""Compose a config from the command line. Hydra does the work; this module words the errors.

Nothing here imports torch, so that help, ``--cfg job`` and a misspelt name answer at once.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ssl_platform.config.calls import calls_in
from ssl_platform.config.hints import no_config, unknown_key
from ssl_platform.config.moved import GONE, MOVED, in_other_words
from ssl_platform.config.overrides import (
    MOST_OVERRIDES,
    combinations,
    key_of,
    parsed,
    replacing,
    spelled_out,
    swept,
    swept_keys,
    unreadable,
)
from ssl_platform.config.search import is_search, problems_of_search, tried
from ssl_platform.config.shipped import CONFIG_DIR, files_in, groups, runnable
from ssl_platform.config.yaml_file import read_yaml, require_short
from ssl_platform.errors import ConfigError, first_line, nearest

PRIMARY = "defaults"
OF_HYDRA = ("hydra._internal.", "hydra_plugins.", "colorlog.", "optuna.samplers.")
AN_ENTRY = "'+schedules.PART.OPTION={name: ..., ...}'"


@dataclass(frozen=True)
class Source:
    """Where a config comes from: a primary file in a directory, and overrides of it."""

    directory: Path
    primary: str
    overrides: list[str]
    config_dirs: tuple[Path, ...]

    @classmethod
    def of(cls, overrides: Iterable[str], config_dirs: Iterable[str | Path] = ()) -> "Source":
        """Resolve ``config=``: the name of a runnable file, or the path of one.

        A path to a file that starts with ``# @package _global_`` is a runnable file of the user's;
        any other is a whole config that a run has saved.

        Raises:
            ConfigError: no config is chosen, or it does not exist.
        """
        overrides = [part for o in overrides for part in spelled_out(o)]
        if len(overrides) > MOST_OVERRIDES:
            raise ConfigError(
                [f"{len(overrides):,} overrides, more than {MOST_OVERRIDES:,}; write a YAML file"]
            )
        # of an earlier `_of_file`: Hydra refuses a file of the same name that lies elsewhere
        ConfigStore.instance().repo.pop("config", None)
        dirs = tuple(Path(d).absolute() for d in config_dirs)
        for directory in dirs:
            if not os.path.isdir(directory):
                raise ConfigError([f"--config-dir {directory}: no such directory"])
        configs = [o for o in overrides if o.startswith("config=")]
        if not configs:
            words = [problem for o in overrides if "=" not in o for problem in unreadable(o)]
            raise ConfigError(words or [f"config=: which one? {nearest('', runnable(dirs))}"])
        if len(configs) > 1:
            raise ConfigError([f"{' '.join(configs)}: a run has one config"])
        (chosen,) = configs
        value = chosen.removeprefix("config=")
        others = [o for o in overrides if o != chosen]
        if value.endswith((".yaml", ".yml")):
            return cls._of_file(Path(value), others, dirs)
        if value not in runnable(dirs):
            hint = no_config(value, runnable(dirs), groups())
            raise ConfigError([f"{chosen}: no such config; {hint}"])
        return cls(CONFIG_DIR, PRIMARY, [chosen, *others], dirs)

    @classmethod
    def _of_file(cls, path: Path, overrides: list[str], dirs: tuple[Path, ...]) -> "Source":
        if not os.path.exists(path):
            raise ConfigError([f"config={path}: no such file (working directory: {Path.cwd()})"])
        try:
            node = read_yaml(path)
            text = path.read_text()
        except Exception as error:  # as in read()
            raise ConfigError([f"config={path}: {first_line(error)}"]) from None
        if not isinstance(node, DictConfig):
            raise ConfigError([f"config={path}: not a mapping of keys to values"])
        if "hydra" in node:
            raise ConfigError([f"config={path}: hydra: belongs on the command line"])
        if not text.lstrip().startswith("# @package _global_"):
            return cls(path.parent.absolute(), path.stem, overrides, dirs)
        ConfigStore.instance().store(path.stem, node, group="config", package="_global_")
        return cls(CONFIG_DIR, PRIMARY, [f"config={path.stem}", *overrides], dirs)

    def read(self) -> tuple[DictConfig, list[str]]:
        """Compose the config.

        Returns:
            The config without the overrides that are wrong, and one line for each of those.

        Raises:
            ConfigError: nothing can be composed.
        """
        problems = [problem for o in self.overrides for problem in unreadable(o) or swept(o)]
        if problems:
            raise ConfigError(problems)
        try:
            return self._finish(self._compose(self.overrides)), []
        except ConfigError:
            raise
        except Exception as error:  # Hydra and OmegaConf raise errors of many types
            reason = first_line(error)
        try:
            self._compose([self._chosen] if self.primary == PRIMARY else [])
        except Exception as fault:
            raise ConfigError([f"{self._chosen}: {first_line(fault)}"]) from None
        good, problems = self._sort_out()
        if sorted(good) == sorted(self.overrides):
            raise ConfigError([reason])
        cfg, further = replace(self, overrides=good).read()
        return cfg, problems + further

    def arguments(self) -> list[str]:
        """The overrides, and one that tells Hydra of the further directories."""
        paths = ",".join(f"file://{d}" for d in self.config_dirs)
        return [*self.overrides, *([f"hydra.searchpath=[{paths}]"] if paths else [])]

    def _compose(self, overrides: list[str], return_hydra_config: bool = False) -> DictConfig:
        arguments = replace(self, overrides=overrides).arguments()
        GlobalHydra.instance().clear()  # a sweep composes its jobs inside Hydra's own main
        with hydra.initialize_config_dir(str(self.directory), version_base="1.3"):
            return hydra.compose(self.primary, arguments, return_hydra_config)

    def name(self) -> str:
        """Name of a run: that of ``name=``, else that of the config."""
        given = dict(o.split("=", 1) for o in self.overrides if o.startswith(("name=", "config=")))
        return given.get("name", given.get("config", self.primary))

    def refuse_calls(self) -> None:
        """Refuse what Hydra's main function would call for its own section, but Hydra's own parts.

        Raises:
            ConfigError: a config or an override names something else.
        """
        swept = [key for key in swept_keys(self.overrides) if not key.startswith("hydra")]
        of_hydra = [o for o in self.overrides if key_of(o) not in swept]
        problems = [
            f"hydra.{where}={value}: only Hydra's own parts are called"
            for job in combinations(of_hydra, self._choices)
            for where, value in calls_in(self._with_hydra(job))
            if not str(value).startswith(OF_HYDRA)
        ]
        if problems:
            raise ConfigError(problems)

    def _with_hydra(self, overrides: list[str]) -> DictConfig:
        """Hydra's own section of a composed config."""
        try:
            section: DictConfig = self._compose(overrides, return_hydra_config=True).hydra
        except Exception as error:  # as in read()
            raise ConfigError([first_line(error)]) from None
        return section

    def _recipe(self) -> str | None:
        """The shipped config that is chosen, or that a file of the user's begins with."""
        name = self._chosen.removeprefix("config=")
        of_user = ConfigStore.instance().repo.get("config", {}).get(f"{name}.yaml")
        entries = [] if of_user is None else (of_user.node.get("defaults") or [])
        names = [str(entry).removeprefix("/config/") for entry in (name, *entries)]
        return next((n for n in names if n in runnable()), None)

    @property
    def _chosen(self) -> str:
        chosen = (o for o in self.overrides if o.startswith("config="))
        return next(chosen, f"config={self.directory / self.primary}.yaml")

    def _finish(self, cfg: DictConfig) -> DictConfig:
        if "config" in cfg:  # as a key, where the file's own keys should be at the top
            raise ConfigError([f"{self._chosen}: its first line has to be '# @package _global_'"])
        if cfg.get("name", "") is None:
            cfg.name = self.name()
        if cfg.get("recipe", "") is None:
            cfg.recipe = self._recipe()
        plain: Any = OmegaConf.to_container(cfg)
        try:
            require_short(plain)
        except ValueError as error:
            raise ConfigError([f"{self._chosen}: {error}"]) from None
        return cfg

    def _sort_out(self) -> tuple[list[str], list[str]]:
        """Overrides that compose, and the problems of those that do not.

        Each choice of a part composes a config. All values are set in one config, because composing
        takes a hundred times as long as setting a value.
        """
        good = [o for o in self.overrides if o.startswith("config=")]
        problems = []
        choices = [o for o in self.overrides if o not in good and self._is_composed(o)]
        values = [o for o in self.overrides if o not in good and o not in choices]
        for override in choices:
            try:
                self._compose([*good, override])
                good.append(override)
            except Exception as error:
                problems.append(self._explain(override, self._compose(good), error))
        cfg = self._compose(good)
        for override in values:
            try:
                good += _set_value(cfg, override)
            except Exception as error:
                problems.append(self._explain(override, cfg, error))
        return good, problems

    def _is_composed(self, override: str) -> bool:
        """Whether an override decides which files a config is made of."""
        key = key_of(override)
        return bool(self._choices(key)) or re.match(r"hydra\b", key) is not None

    def _explain(self, override: str, cfg: Any, error: Exception) -> str:
        """What is wrong with an override of a config."""
        key, node = key_of(override), cfg
        choices = self._choices(key)
        value = override.partition("=")[2]
        if choices and value in choices:
            return f"{override}: one is chosen already; write {key}={value}"
        if choices and not parsed(override).is_delete():
            return f"{override}: no such file; {nearest(value, choices)}"
        names = key.split(".")
        for depth, name in enumerate(names):
            if not isinstance(node, DictConfig):
                return f"{override}: {'.'.join(names[:depth])} is a value and has no {name!r}"
            if depth and names[0] == "schedules" and name not in node and "name" not in node:
                return f"{override}: there is no such entry yet; write '+{override}'"
            if depth and not node:  # null, which Hydra has just made a mapping of
                return f"{override}: {self._null(names[:depth], names[depth:], value)}"
            if name not in node:
                hint = nearest(name, [str(k) for k in node])
                if key in MOVED:
                    hint = f"it is {MOVED[key]} now"
                elif key in GONE:
                    hint = GONE[key]
                elif depth in (0, len(names) - 1):
                    hint = unknown_key(key, value, cfg) or hint
                if depth == 0 and name in _keys_of_a_training():
                    hint = f"only a training has this key; {hint}"
                return f"{override}: there is no {'.'.join(names[: depth + 1])}; {hint}"
            node = node[name] if not OmegaConf.is_missing(node, name) else None
        if key == "schedules":
            return f"{override}: add an entry by its path, {AN_ENTRY}"
        given = parsed(override).value()
        for name in given if isinstance(given, dict) and isinstance(node, DictConfig) else ():
            if name not in node:
                return f"{override}: there is no {key}.{name}; {nearest(name, map(str, node))}"
        return f"{override}: {first_line(error)}"

    def _null(self, above: list[str], below: list[str], value: str) -> str:
        """What to type for a value below a key that is null, such as ``data.val.path=...``."""
        part, group = ".".join(above), above[0]
        hint = f"{part} is null; give all of it, as in '{part}={{{'.'.join(below)}: {value}, ...}}'"
        others = self._choices(group)
        return f"{hint}, or another {group}={'|'.join(others)}" if others else hint

    def _choices(self, group: str) -> list[str]:
        """Files of a config group; none where the name cannot be that of a folder."""
        folder = group.partition("@")[0]
        if not re.fullmatch(r"[\w-]{1,100}(/[\w-]{1,100}){0,9}", folder):
            return []
        dirs = (CONFIG_DIR, *self.config_dirs)
        return sorted({name for d in dirs for name in files_in(d / folder)})


def _set_value(cfg: DictConfig, override: str) -> list[str]:
    """Set a value in a composed config; returns the overrides that do the same in Hydra."""
    try:
        ConfigLoaderImpl._apply_overrides_to_config([parsed(override)], cfg)
        return [override]
    except Exception:
        worded = in_other_words(override, cfg)
        replaced = replacing(worded, OmegaConf.select(cfg, key_of(worded)))
        if replaced == [override]:
            raise
        ConfigLoaderImpl._apply_overrides_to_config([parsed(o) for o in replaced], cfg)
        return replaced


def sweep_jobs(overrides: list[str], config_dirs: Iterable[str | Path] = ()) -> Iterator[list[str]]:
    """The overrides of every run of a sweep; of a search, those that are tried before.

    Raises:
        ConfigError: an override cannot be read, or has no values or too many.
    """
    problems = [problem for override in overrides for problem in unreadable(override)]
    if problems:
        raise ConfigError(problems)
    of_hydra = [key for key in swept_keys(overrides) if re.match(r"hydra\b", key)]
    if of_hydra:
        raise ConfigError([f"{key}: Hydra's own settings cannot be swept over" for key in of_hydra])
    problems = problems_of_search(overrides)
    if problems:
        raise ConfigError(problems)
    source = Source(CONFIG_DIR, PRIMARY, [], tuple(Path(d).absolute() for d in config_dirs))
    jobs = tried if is_search(overrides) else combinations
    return jobs(overrides, source._choices)


@cache
def _keys_of_a_training() -> set[str]:
    return {str(key) for key in Source(CONFIG_DIR, PRIMARY, [], ())._compose(["~config"])}
