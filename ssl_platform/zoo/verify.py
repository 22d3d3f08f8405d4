"""Describe weights in words, and check that none of them is missing."""

from collections import Counter

import torch

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.architecture import head_node, options_text, trunk_option
from ssl_platform.zoo.soundness import first_gap
from ssl_platform.zoo.weights import Weights, build_trunk, misfits, unknown_trunk


def describe(weights: Weights) -> list[tuple[str, str]]:
    """Format, architecture and what each part holds, as label and text."""
    lines = [
        ("source", weights.shown),
        ("file", str(weights.path)),
        ("sha256", weights.sha256),
        ("format", weights.format),
        ("trunk", _trunk(weights)),
        ("head", _head(weights)),
        ("classifier", _classifier(weights)),
    ]
    counts = Counter(weights.unused.values())
    return lines + [("unused", f"{what}: {_tensors(count)}") for what, count in counts.items()]


def destinations(weights: Weights) -> list[tuple[str, str]]:
    """Every key of the source, and its name here."""
    used = {key: place for place, key in weights.origin.items()}
    return [*used.items(), *((key, f"unused: {what}") for key, what in weights.unused.items())]


def require_whole(weights: Weights) -> None:
    """Compare the trunk with its architecture, and the head with a `PrototypeHead`.

    Raises:
        CheckpointError: something is missing, or nothing of the source is used.
    """
    if not (weights.trunk or weights.head or weights.classifier):
        raise CheckpointError(f"{weights.source}: nothing in it can be used")
    problems = _problems_of_trunk(weights)
    if problems:
        raise CheckpointError(f"{weights.source}: not whole; {'; '.join(problems)}")
    if weights.head:
        weights.prototype_head()


def _problems_of_trunk(weights: Weights) -> list[str]:
    node = weights.trunk_node
    if node is None:
        gap = first_gap(weights.trunk)
        return [f"{gap} is missing"] if gap is not None else []
    if unknown_trunk(weights) is not None:
        plugins = f" (plugins=[{','.join(weights.plugins)}])" if weights.plugins else ""
        raise CheckpointError(
            f"{weights.source}: its trunk {node['name']} is of a plug-in{plugins}, and none is "
            "imported here: whether it is whole cannot be told"
        )
    with torch.device("meta"):
        wanted = build_trunk(weights).state_dict()
    return misfits(wanted, weights.trunk)


def _trunk(weights: Weights) -> str:
    if not weights.trunk:
        return "none"
    if weights.trunk_node is None:
        return (
            f"{_tensors(len(weights.trunk))} of an architecture that they do not tell; whether the "
            "last block is there cannot be seen"
        )
    return f"{_tensors(len(weights.trunk))} of {trunk_option(weights.trunk_node)}"


def _head(weights: Weights) -> str:
    node = head_node(weights.head)
    return f"{_tensors(len(weights.head))} of {options_text('', node)}" if node else "none"


def _classifier(weights: Weights) -> str:
    if not weights.classifier:
        return "none"
    classes, width = weights.classifier["weight"].shape
    return f"{classes} classes from {width} features"


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' if count != 1 else ''}"
