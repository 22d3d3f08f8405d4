"""What a config may not ask for: that something is called."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

CALLS = (
    "_target_",
    "_partial_",
    "_recursive_",
    "_convert_",
    "_args_",
    "()",
)  # of Hydra and logging


def nameless(cfg: DictConfig) -> list[str]:
    """Problems of components whose ``name`` is no name, without a look at what there is."""
    plain: Any = OmegaConf.to_container(cfg)
    return [
        f"{where}.name={name}: the name of a class, in letters"
        for where, name in _names(plain, "")
        if name is not None and not isinstance(name, str)
    ]


def _names(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The key ``name`` of every mapping below the top."""
    for key, child in node.items() if isinstance(node, dict) else ():
        if isinstance(child, dict):
            place = f"{where}.{key}" if where else str(key)
            yield from ([(place, child["name"])] if "name" in child else [])
            yield from _names(child, place)


def calls(cfg: DictConfig) -> list[str]:
    """Problems of a config that wants something called, as Hydra's ``instantiate`` would."""
    return [
        f"{where}={value}: nothing is called from a config; components have a registered name"
        for where, value in calls_in(cfg)
    ]


def calls_in(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The keys by which Hydra or Python's logging call something, with their values."""
    node = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        place = f"{where}.{key}" if where else str(key)
        if key in CALLS:
            yield place, value
        elif isinstance(value, (dict, list)):
            yield from calls_in(value, place)
