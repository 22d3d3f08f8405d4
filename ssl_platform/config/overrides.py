"""Overrides as they are typed, and the runs that a sweep over some of them stands for."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from math import isfinite
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep, ValueType

from ssl_platform.config.hints import no_override
from ssl_platform.config.shipped import groups, runnable
from ssl_platform.errors import ConfigError, first_line, nearest

MOST_OVERRIDES, MOST_RUNS = 1000, 1000
# the value of ``loggers=wandb`` and of ``loggers=[wandb,mlflow]``
LOGGERS = re.compile(r"\w+|\[\w+(, *\w+)*\]")
LONGEST_KEY = 200  # letters: a longer one takes long to parse and cannot be the name of a folder


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(maxsize=2 * MOST_OVERRIDES)
def parsed(override: str) -> Override:
    """An override, parsed by Hydra, which raises errors of many types."""
    return _parser().parse_override(override)


def key_of(override: str) -> str:
    """The key or the config group that an override is about."""
    key: str = parsed(override).key_or_group
    return key


def spelled_out(override: str) -> list[str]:
    """``resume=X`` is ``resume.mode=X``; ``loggers=[X,Y]``, or one of them, switches those on."""
    section, _, value = override.partition("=")
    if section == "loggers" and LOGGERS.fullmatch(value) and value != "null":
        names = value.strip("[]").split(",")
        return [f"loggers.{name.strip()}.enabled=true" for name in names]
    is_short = section == "resume" and not value.startswith("{")  # else a mapping of its options
    return [f"resume.mode={value}" if is_short and value else override]


def replacing(override: str, present: Any) -> list[str]:
    """Overrides that replace a mapping by another: ``data.train={name: ..., ...}``.

    Hydra would merge the keys of the two. Any other override is returned as it is, and so are some
    options of a component, without its name.

    Args:
        present: what the config has at that place.
    """
    key, value = key_of(override), parsed(override).value()
    if "." not in key or not override.startswith(key) or not isinstance(value, dict) or not value:
        return [override]
    is_whole = "name" in value or "name" not in (present or {})
    return [f"~{key}", f"+{override}"] if is_whole else [override]


def swept_keys(overrides: Iterable[str]) -> list[str]:
    """The keys with several values, as in ``optimizer.lr=0.1,0.3``."""
    return [key_of(o) for o in overrides if parsed(o).is_sweep_override()]


def combinations(
    overrides: Iterable[str], choices: Callable[[str], list[str]]
) -> Iterator[list[str]]:
    """The overrides of each run of a sweep.

    Args:
        overrides: overrides that Hydra can read.
        choices: returns the names of the files of a group.

    Raises:
        ConfigError: an override has no values, or there are too many runs.
    """
    values = [values_of(text, parsed(text), choices) for text in overrides]
    number = 1
    for each in values:
        number *= len(each)
    if number > MOST_RUNS:
        raise ConfigError([f"-m: {number:,} runs, more than {MOST_RUNS:,}"])
    return (list(job) for job in itertools.product(*values))


def values_of(text: str, override: Override, choices: Callable[[str], list[str]]) -> list[str]:
    """One override for each of the values of an override.

    Raises:
        ConfigError: it has none, or they have no end.
    """
    if not override.is_sweep_override():
        return [text]
    key, value = override.get_key_element(), override.value()
    if isinstance(value, Glob):
        names = choices(override.key_or_group)
        matches = value.filter(names)
        _require(matches, f"{text}: no part of this group is named so; {nearest('', names)}")
        return [f"{key}={name}" for name in matches]
    _require(
        override.value_type != ValueType.INTERVAL_SWEEP,
        f"{text}: an interval has no end of values; name them, as in choice(0.1, 0.3)",
    )
    if isinstance(value, RangeSweep):
        _check_range(text, value)
    try:
        return [f"{key}={one}" for one in override.sweep_string_iterator()]
    except Exception as error:  # of Hydra
        problem = f"{text}: not values to sweep over ({first_line(error)})"
        raise ConfigError([problem]) from error


def _check_range(text: str, sweep: RangeSweep) -> None:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    given = [number for number in (start, stop, step) if number is not None]
    _require(
        len(given) == 3 and all(map(isfinite, given)) and step != 0,
        f"{text}: a range goes from a number to another, in steps that are not 0",
    )
    number = (stop - start) / step  # type: ignore[operator]
    _require(number > 0, f"{text}: this range is empty")
    _require(number <= MOST_RUNS, f"{text}: {number:,.0f} values, more than {MOST_RUNS:,}")


def _require(holds: Any, problem: str) -> None:
    if not holds:
        raise ConfigError([problem])


def unreadable(override: str) -> list[str]:
    """The problem of an override that Hydra cannot read; empty if it can."""
    if "\0" in override:
        return [f"{override}: a null byte, which no value can have"]
    length = len(override.partition("=")[0])
    if length > LONGEST_KEY:
        return [f"{override}: no key has {length:,} letters"]
    try:
        if not key_of(override):
            return [f"{override}: not an override; write key=value"]
    except Exception as error:
        key, is_assigned, value = override.partition("=")
        if is_assigned and not {"'", '"'} & set(value):
            hint = f"""quote its value, and all of it for the shell: "{key}='{value}'\""""
        else:
            hint = first_line(error) if is_assigned else no_override(key, runnable(), groups())
        return [f"{override}: not an override; {hint}"]
    return []


def swept(override: str) -> list[str]:
    """The problem of an override with several values where one is needed."""
    if not swept_keys([override]):
        return []
    key, _, value = override.partition("=")
    return [
        f"{override}: several values; -m runs each of them, and quotes make one of them: "
        f"\"{key}='{value}'\""
    ]
