"""What a config may not ask for: that something is called."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

# keys by which Hydra or Python's logging call something
CALLS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_", "()")


def nameless(cfg: DictConfig) -> list[str]:
    """Problems of components whose ``name`` is not a text, without a look at what is registered."""
    return [
        f"{place}={name}: the name of a class, in letters"
        for place, key, name in _entries(OmegaConf.to_container(cfg))
        if key == "name" and place != "name" and name is not None and not isinstance(name, str)
    ]


def calls(cfg: DictConfig) -> list[str]:
    """Problems of a config that wants something called, as Hydra's ``instantiate`` would."""
    return [
        f"{where}={value}: nothing is called from a config; components have a registered name"
        for where, value in calls_in(cfg)
    ]


def calls_in(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """The places of `CALLS` in a config, with their values."""
    for place, key, value in _entries(OmegaConf.to_container(cfg)):
        if key in CALLS:
            yield place, value


def _entries(node: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every entry of nested mappings and lists: its dotted path, its key and its value."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        place = f"{where}.{key}" if where else str(key)
        yield place, key, value
        if isinstance(value, dict | list):
            yield from _entries(value, place)
