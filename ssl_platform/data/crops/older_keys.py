"""Keys of MultiCrop from before its ops had names: older runs and users have them in configs."""

from collections.abc import Mapping
from typing import Any

TRANSFORM = "MultiCrop"
OPS = {  # its keys that are ops now, with the class of each
    "flip": "HorizontalFlip",
    "jitter": "ColorJitter",
    "grayscale": "Grayscale",
    "blur": "GaussianBlur",
}
PROBABILITIES = ("flip", "grayscale")  # they were numbers


def with_ops(transform: Mapping[str, Any]) -> Mapping[str, Any]:
    """A transform whose old keys, ``flip: 0.5``, are its ops: those that it has are changed."""
    old = [key for key in OPS if key in transform]
    if transform.get("name") != TRANSFORM or not old:
        return transform
    given = transform.get("ops") or {}
    # those that it has stay at their places; others are older, and so come first
    ops: dict[str, Any] = dict.fromkeys(key for key in old if key not in given) | dict(given)
    for key in old:
        value, op = transform[key], ops[key]
        if key in PROBABILITIES and value is not None and not isinstance(value, Mapping):
            value = {"probability": value}
        if isinstance(value, Mapping):
            value = {**(op if isinstance(op, Mapping) else {"name": OPS[key]}), **value}
        ops[key] = value
    return {**{key: value for key, value in transform.items() if key not in old}, "ops": ops}
