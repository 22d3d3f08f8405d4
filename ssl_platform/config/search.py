"""A sweep whose runs are chosen one after another, by Optuna, instead of all combinations."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import cast

from hydra.core.override_parser.types import IntervalSweep, ValueType

from ssl_platform.config.overrides import key_of, parsed, values_of

SWEEPER = "hydra/sweeper"
CALLS_MORE = "hydra.sweeper.custom_search_space"  # a function of anybody's
DEFAULTS = {"hydra.sweeper.max_failure_rate": "1.0"}  # a run that diverges is no end of the search


def is_search(overrides: Iterable[str]) -> bool:
    """Whether the runs are chosen by what the runs before have found."""
    return any(o.startswith(f"{SWEEPER}=") and o != f"{SWEEPER}=basic" for o in overrides)


def problems_of_search(overrides: Iterable[str]) -> list[str]:
    """What is wrong with a search, by its overrides alone; nothing of other sweeps."""
    overrides = list(overrides)
    if not is_search(overrides):
        return []
    keys = {key_of(o): o for o in overrides}
    if keys[SWEEPER] != f"{SWEEPER}=optuna":
        return [f"{keys[SWEEPER]}: optuna, or leave it out to run every combination"]
    if not _is_installed():
        return [f"{keys[SWEEPER]}: not installed; pip install 'ssl_platform[optuna]'"]
    problems = []
    if "hydra.sweeper.direction" not in keys:
        problems.append(
            f"{keys[SWEEPER]}: which way is better? add hydra.sweeper.direction=maximize, or "
            "minimize"
        )
    if CALLS_MORE in keys:
        problems.append(f"{keys[CALLS_MORE]}: nothing is called from a config")
    return problems


def prepared_search(overrides: Iterable[str]) -> list[str]:
    """Overrides that a search has beside those that are given; its errors come as they are."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.getLogger("alembic").setLevel(logging.WARNING)  # of Optuna: a line for each part
    keys = set(map(key_of, overrides))
    return [f"{key}={value}" for key, value in DEFAULTS.items() if key not in keys]


def tried(overrides: list[str], choices: Callable[[str], list[str]]) -> Iterator[list[str]]:
    """Some runs that a search may choose: each value of each key once, of an interval both ends.

    Args:
        overrides, choices: as for `combinations`.
    """
    values = [_ends(text) or values_of(text, parsed(text), choices) for text in overrides]
    yield [each[0] for each in values]
    for number, each in enumerate(values):
        for other in each[1:]:
            yield [other if n == number else v[0] for n, v in enumerate(values)]


def _ends(text: str) -> list[str]:
    """Both ends of an interval; empty for other values."""
    override = parsed(text)
    if override.value_type != ValueType.INTERVAL_SWEEP:
        return []
    interval = cast("IntervalSweep", override.value())
    return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]


def _is_installed() -> bool:
    return all(map(find_spec, ("optuna", "hydra_plugins", "hydra_plugins.hydra_optuna_sweeper")))
