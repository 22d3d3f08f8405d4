"""A plan: the rules applied to some images and a machine, measured and checked."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ssl_platform.config import compose
from ssl_platform.config.shipped import groups
from ssl_platform.errors import ConfigError
from ssl_platform.start.facts import Case, Facts, Machine, Measured
from ssl_platform.start.recipe import recipe
from ssl_platform.start.rules import ASKED, FLOOR_IMAGES, Choice, choose, seconds_per_image, steps
from ssl_platform.start.sizes import Size, candidates

Measure = Callable[[DictConfig], Measured]


class Plan(NamedTuple):
    """What is to be run.

    Attributes:
        case: with the values of all rules.
        choices: of the keys of the file.
        hours: that the training is predicted to take.
        tried: candidates that were measured, with images/s of a step.
    """

    case: Case
    choices: list[Choice]
    hours: float
    tried: dict[str, float]


def make_plan(
    facts: Facts,
    machine: Machine,
    hours: float,
    given: Mapping[str, Any],
    measure: Measure,
) -> Plan:
    """Choose the largest trunk that sees enough images in the time, and all that follows from it.

    Args:
        given: values of keys, and parts by group, that the user wants.
        measure: times a step of a checked config.

    Raises:
        ConfigError: the config has something wrong, or one pass takes longer than ``hours``.
    """
    wanted = images_wanted(facts, given)
    tried: dict[str, float] = {}
    for size in sizes(facts, machine, given):
        case = Case(facts, machine, size, hours, values=dict(given))
        measured = measure(checked(choose(case)))
        case = replace(case, measured=measured, values=dict(given))
        choices = choose(case)
        tried[f"{size.trunk} at {size.crop} pixels"] = 1 / measured.step_seconds
        if seconds_per_image(case) * wanted <= 3600 * hours:
            break
    seen = steps(case) * case.values["data.batch_size"]
    needed = seen * seconds_per_image(case) / 3600
    if "num_epochs" not in given and needed > 1.5 * hours and needed > 1 / 60:
        raise ConfigError(
            [
                f"one pass over {facts.number:,} images takes about {needed:.2g} hours here, more "
                f"than --hours {hours:g}: give it --hours {needed:.2g}, a GPU, or fewer images"
            ]
        )
    checked(choices)
    return Plan(case, choices, needed, tried)


def images_wanted(facts: Facts, given: Mapping[str, Any]) -> int:
    """Images that have to be seen for a trunk to be worth its time."""
    if "num_epochs" in given:
        return facts.number * int(given["num_epochs"])
    return max(FLOOR_IMAGES, facts.number)


def sizes(facts: Facts, machine: Machine, given: Mapping[str, Any]) -> list[Size]:
    """The candidates; of the trunk that the user wants, if there is one."""
    found = candidates(facts, machine)
    trunk = given.get("trunk")
    if trunk is None:
        return found
    return [s for s in found if s.trunk == trunk] or [found[0]._replace(trunk=str(trunk))]


def checked(choices: Sequence[Choice]) -> DictConfig:
    """The config that choices come to.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(recipe(choices, []))
        cfg = compose([f"config={path}"])
    problems = []
    for choice in choices:
        value: Any = OmegaConf.select(cfg, choice.key)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if choice.source == ASKED and choice.key not in groups() and value != choice.value:
            problems.append(f"{choice.key}: a file adds to a mapping; give the values in it by key")
    if problems:
        raise ConfigError(problems)
    return cfg
