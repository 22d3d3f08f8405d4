"""How the config of a run differs from the one that was saved, and what of it may be written."""

import copy
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ssl_platform.config.options import components, is_below
from ssl_platform.config.saved import BEFORE_THERE_WERE_OPTIONS, with_defaults
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.errors import ConfigError
from ssl_platform.schema import flat

# what may differ when a run is started again in its directory
FREE_TO_CHANGE = (
    "name",
    "output_dir",
    "hooks",
    "num_epochs",
    "profile",
    "launch.timeout_minutes",
    "launch.stop_seconds",
    "launch.max_restarts",
    "launch.slurm",
    "launch.threads",
    "launch.worker_start",
    "data.num_workers",
    "save",
    "resume",
)

logger = logging.getLogger(__name__)
SECRET = re.compile("token|secret|password|api_key", re.IGNORECASE)
STRUCK_OUT = "*****"


def without_secrets(cfg: DictConfig) -> DictConfig:
    """A copy whose passwords and tokens are struck out; references to the environment stay."""
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


def differences(saved: Path, new: DictConfig, allowed: Sequence[str]) -> list[str]:
    has_images = "train" in (new.get("data") or {})
    young = {f"data.{key}": value for key, value in BEFORE_THERE_WERE_OPTIONS.items()}
    after = (young if has_images else {}) | _flat(without_secrets(new))
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
    with suppress(OSError, ValueError):  # one is not there, or no path
        return all(isinstance(v, str) for v in (before, after)) and os.path.samefile(before, after)
    return False


def _defaults(cfg: DictConfig) -> dict[str, Any]:
    """By dotted path, what components do without an option that is given here: what they did before
    they had it."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return {
        f"{where}.{option}": default
        for where, registry, node in components(plain)
        for option, default in registry.schema(node["name"]).defaults.items()
        if option in node
    }


def _saved_values(path: Path) -> dict[str, Any]:
    """The config of a run by dotted path, a key that is younger than it at its default.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        filled, keys = with_defaults(OmegaConf.to_container(read_yaml(path)))
        values = _flat(OmegaConf.create(filled))
    except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError([f"{path}: the config of a run, cannot be read ({reason})"]) from error
    if keys:
        told = ", ".join(keys)
        logger.warning("%s is older than some keys, taken at their defaults: %s", path, told)
    return values


def _flat(cfg: Any) -> dict[str, Any]:
    """Plain values by dotted path."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    return flat(plain)
