"""Parameters by the rules of ``param_groups``: in groups for the optimizer, or frozen."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ssl_platform.config.options import ParameterGroup
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.teacher import student_parameters


def parameter_groups(model: nn.Module, rules: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """The student's parameters in groups for an optimizer; those of no rule come first.

    Raises:
        ValueError: a rule matches no parameter that earlier rules have left, or two have one name.
    """
    names = [rule.name for rule in rules if rule.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"name={name}: two groups have it; each needs its own")
    rest: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = [{"params": [], "lr_scale": rule.lr_scale} for rule in rules]
    for name, parameter in student_parameters(model):
        matching = (n for n, rule in enumerate(rules) if fnmatchcase(name, rule.match))
        number = next(matching, None)
        (rest if number is None else groups[number]["params"]).append(parameter)
    for group, rule in zip(groups, rules, strict=True):
        if not group["params"]:
            raise ValueError(
                f"match={rule.match}: no parameter is named so; names begin with trunk. or heads."
            )
        if rule.weight_decay is not None:
            group["weight_decay"] = rule.weight_decay
        if rule.name is not None:
            group["name"] = rule.name
    return [{"params": rest}, *groups] if rest else groups


def freeze(model: SSLModel, rules: Sequence[ParameterGroup]) -> None:
    """Freeze the parameters whose ``lr_scale`` is 0; the first rule that matches counts.

    Raises:
        ValueError: nothing is left to train.
    """
    frozen = []
    for name, parameter in student_parameters(model):
        scale = next((rule.lr_scale for rule in rules if fnmatchcase(name, rule.match)), None)
        if scale == 0:
            frozen.append(parameter)
    model.freeze(frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("lr_scale=0 of all that freeze_trunk leaves: nothing is left to train")
