"""Options of the optimizer, the loss and the teacher that a schedule sets before every step."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssl_platform.config.options import Node, ParameterGroup, TrainOptions, scheduled_options
from ssl_platform.errors import nearest
from ssl_platform.registry import Registry

OPTIMIZER, GROUPS = "optimizer", "param_groups"
PARTS = ("loss", OPTIMIZER, GROUPS, "teacher")


@dataclass(frozen=True)
class Slot:
    """A number of a part that can be set while a training runs."""

    value: float  #: that the config gives it
    put: Callable[[float], None]


@dataclass(frozen=True)
class Scheduled:
    """An option and its schedule."""

    schedule: Callable[[int], float]
    put: Callable[[float], None]

    def set_at(self, position: int) -> float:
        """Give the option its value at a position of the training; returns the value."""
        value = float(self.schedule(position))
        self.put(value)
        return value


def owner_of(place: str) -> str:
    """The component whose options are set at a place of ``schedules``."""
    return OPTIMIZER if place.partition(".")[0] == GROUPS else place


def slot_of(
    key: str, part: Any, nodes: Mapping[str, tuple[Registry, Node]], options: TrainOptions
) -> Slot:
    """The slot that an entry of ``schedules`` sets.

    Args:
        key: of the entry: ``loss.temperature``, ``param_groups.head.lr``.
        part: the loss, the teacher or the optimizer, as the key says; None if there is none.
        nodes: registry and node by the component's place in the config.
        options: of the config.

    Raises:
        ValueError: there is no such part or option, it is no number, or setting it changes nothing.
    """
    place, _, option = key.rpartition(".")
    section, _, name = place.partition(".")
    if section not in PARTS:
        raise ValueError(f"no part {section} has schedules; {nearest(section, PARTS)}")
    if part is None:
        raise ValueError(f"this config has no {section}")
    numbers = numbers_of(*nodes[owner_of(place)])
    if section == GROUPS:
        return slot_of_group(name, option, part, numbers, options.param_groups)
    if section == OPTIMIZER:
        others = [other for other, _ in scheduled_options(options.schedules)]
        return slot_of_optimizer(option, part, numbers, options.param_groups, others)
    return slot_of_part(place, option, part, numbers)


def slot_of_part(place: str, option: str, part: Any, numbers: Mapping[str, float]) -> Slot:
    """The slot of an option that a part keeps as an attribute of the same name.

    Args:
        place: of the part in the config, for messages.
        numbers: of `numbers_of`.

    Raises:
        ValueError: it is no number, or the part would not notice that it is set.
    """
    value = _number(place, option, part, numbers)
    kept = getattr(part, option, None)
    try:
        if isinstance(kept, bool) or not isinstance(kept, int | float) or kept != value:
            raise AttributeError
        setattr(part, option, kept)
    except AttributeError:
        raise ValueError(
            f"{type(part).__name__} does not keep {option} as it is in an attribute "
            f"self.{option}, so setting it would change nothing"
        ) from None
    return Slot(value, lambda new: setattr(part, option, new))


def slot_of_optimizer(
    option: str,
    optimizer: torch.optim.Optimizer,
    numbers: Mapping[str, float],
    rules: Sequence[ParameterGroup],
    others: Collection[str],
) -> Slot:
    """The slot of an option in all groups of parameters that do not have it from elsewhere.

    Args:
        rules: those of ``param_groups``.
        others: the keys of all schedules.

    Raises:
        ValueError: it is no number, or in no group.
    """
    if option == "lr":
        raise ValueError("the schedule of the learning rate is the key schedule")
    value = _number(OPTIMIZER, option, optimizer, numbers)
    if option not in optimizer.defaults:
        return slot_of_part(OPTIMIZER, option, optimizer, numbers)
    first = len(optimizer.param_groups) - len(rules)  # what no rule matches comes before
    chosen = [*range(first)]
    for number, rule in enumerate(rules, first):
        sets_its_own = option == "weight_decay" and rule.weight_decay is not None
        if not sets_its_own and f"{GROUPS}.{rule.name}.{option}" not in others:
            chosen.append(number)
    if not chosen:
        raise ValueError(f"every entry of {GROUPS} sets its own, so it would change nothing")
    return Slot(value, _setter(optimizer, option, chosen))


def slot_of_group(
    name: str,
    option: str,
    optimizer: torch.optim.Optimizer,
    numbers: Mapping[str, float],
    rules: Sequence[ParameterGroup],
) -> Slot:
    """The slot of an option in one group of parameters; ``lr`` is that of the group.

    Args:
        name: of the group.
        numbers: those of the optimizer, see `numbers_of`.
        rules: those of ``param_groups``.

    Raises:
        ValueError: there is no such group or option, or the group is frozen.
    """
    names = [rule.name for rule in rules if rule.name is not None]
    if name not in names:
        hint = nearest(name, names) if names else f"{GROUPS}=[{{name: {name}, match: ...}}]"
        raise ValueError(f"no entry of {GROUPS} has the name {name}; {hint}")
    number, rule = next(pair for pair in enumerate(rules) if pair[1].name == name)
    if rule.lr_scale == 0:
        raise ValueError("lr_scale=0 freezes this group, so it would change nothing")
    if option == "lr_scale":
        raise ValueError(f"the learning rate of a group is its lr: schedules.{GROUPS}.{name}.lr")
    of_groups = {key: given for key, given in numbers.items() if key in optimizer.defaults}
    value = _number(f"{GROUPS}.{name}", option, optimizer, of_groups)
    if option == "lr":
        value = optimizer.defaults["lr"] * rule.lr_scale
    if option == "weight_decay" and rule.weight_decay is not None:
        value = rule.weight_decay
    first = len(optimizer.param_groups) - len(rules)
    return Slot(value, _setter(optimizer, option, [first + number]))


def numbers_of(registry: Registry, node: Node) -> dict[str, float]:
    """The options of a component that are numbers and not whole: those that can be scheduled.

    Whole ones are lengths and counts, by which a part is made.
    """
    schema = registry.schema(node["name"])
    options = schema.convert({key: value for key, value in node.items() if key != "name"})
    return {
        key: value
        for key, value in options.items()
        if isinstance(value, float)
        or (type(value) is int and schema.annotations.get(key, Any) is Any)
    }


def _number(place: str, option: str, part: Any, numbers: Mapping[str, float]) -> float:
    if option not in numbers:
        raise ValueError(
            f"{place}.{option} is no number of {type(part).__name__} that a schedule can set; "
            f"{nearest(option, numbers)}"
        )
    return numbers[option]


def _setter(
    optimizer: torch.optim.Optimizer, option: str, numbers: Sequence[int]
) -> Callable[[float], None]:
    """Sets an option of some groups, by their numbers: a resumed optimizer has other groups."""

    def put(value: float) -> None:
        for number in numbers:
            optimizer.param_groups[number][option] = value

    return put
