"""The number by which a search compares its runs."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig

from ssl_platform.config.options import TrainOptions, options_of
from ssl_platform.errors import ConfigError, nearest
from ssl_platform.launch import launcher_of
from ssl_platform.registry import HOOKS


def problems_of_objective(options: TrainOptions) -> list[str]:
    """Refuse a number that no hook of the config says it gives."""
    wanted = options.objective
    if wanted is None:
        return []
    kinds = [HOOKS.get(node["name"]) for node in options.hooks.values() if node]
    given = sorted({name for kind in kinds for name in getattr(kind, "results", ())})
    if any(fnmatchcase(wanted, pattern) for pattern in given):
        return []
    return [
        f"objective={wanted}: no hook of this config gives such a number; {nearest(wanted, given)}"
    ]


def problems_of_searched(cfg: DictConfig) -> list[str]:
    """Refuse a checked config that cannot be one of a search's runs."""
    options = options_of(cfg)
    if getattr(options, "objective", None) is None:
        return ["objective=null: a search needs one, e.g. objective=views.trained.found"]
    if launcher_of(options.launch).is_elsewhere:
        return ["launch: a search waits for each of its runs; they have to be on this machine"]
    return []


def objective_of(results: Mapping[str, Any], wanted: str) -> float:
    """The number at a dotted path of a run's results.

    Raises:
        ConfigError: there is none.
    """
    numbers = dict(_numbers(results))
    if wanted not in numbers:
        problem = f"objective={wanted}: the results of this run lack it; {nearest(wanted, numbers)}"
        raise ConfigError([problem])
    return numbers[wanted]


def _numbers(node: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, float]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{where}{key}.")
        elif isinstance(value, int | float):
            yield f"{where}{key}", float(value)
