"""Groups of crops, and the ops of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from ssl_platform.data.crops.ops import CalledOp, DrawnOp
from ssl_platform.data.crops.ranges import Size, rising
from ssl_platform.errors import nearest
from ssl_platform.ops.image_size import height_and_width
from ssl_platform.registry import CROP_OPS

Ratio = Annotated[tuple[float, float], rising(0.01, 100)]


@dataclass(frozen=True)
class CropGroup:
    """Crops of one size and scale."""

    size: Size  # side, or height and width; pixels
    count: Annotated[int, Field(ge=0)]  # per image; 0 turns the group off
    # range of a crop's area, as a part of the image's
    scale: Annotated[tuple[float, float], rising(0, 1)]
    ratio: Ratio | None = None  # None: that of the transform
    # what differs from the transform's: some options of an op, another op, or None for no op
    ops: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlacedOp:
    """An op of a group, and its place in the config."""

    where: str
    op: DrawnOp


def ops_of_groups(
    groups: Mapping[str, CropGroup], common: Mapping[str, Any]
) -> dict[str, dict[str, PlacedOp]]:
    """The ops of each group, by name and in order.

    Args:
        groups: by name.
        common: the ops of all groups by name; a group's own change them. An op is an object or a
            mapping with ``name`` and options; None stands for none.

    Raises:
        ValueError: a line for each that cannot work, which starts with its place.
    """
    wrong = {key: _problems(node, f"ops.{key}") for key, node in common.items()}
    problems = [line for lines in wrong.values() for line in lines]
    merged: dict[str, dict[str, tuple[str, Any]]] = {}
    for name, group in groups.items():
        merged[name] = {key: (f"ops.{key}", node) for key, node in common.items()}
        for key, node in group.ops.items():
            where = f"crops.{name}.ops.{key}"
            if not wrong.get(key):
                node = _changed(common.get(key), node)
                problems += _unknown(key, node, where, common) or _problems(node, where)
            merged[name][key] = where, node
    if problems:
        raise ValueError("\n".join(problems))
    placed = {
        name: {
            key: PlacedOp(where, _built(where, node))
            for key, (where, node) in nodes.items()
            if node is not None
        }
        for name, nodes in merged.items()
    }
    problems = [line for name, group in groups.items() for line in unfit(group, placed[name], None)]
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return placed


def unfit(group: CropGroup, placed: Mapping[str, PlacedOp], channels: int | None) -> Iterator[str]:
    """Lines about ops that cannot work with the crops of a group, of so many channels if known."""
    for one in placed.values():
        for line in one.op.problems(*height_and_width(group.size), channels):
            yield f"{one.where}.{line}"


def _changed(common: Any, own: Any) -> Any:
    """An op of a group: options of its own before those of the common one, if it is the same op."""
    if not isinstance(common, Mapping) or not isinstance(own, Mapping):
        return own
    is_same = own.get("name", common.get("name")) == common.get("name")
    return {**common, **own} if is_same else own


def _unknown(key: str, node: Any, where: str, common: Mapping[str, Any]) -> list[str]:
    if key in common or not isinstance(node, Mapping) or "name" in node:
        return []
    hint = nearest(key, list(common))
    return [f"{where}: no op of all groups is called so, {hint}; one of this group needs a name"]


def _problems(node: Any, where: str) -> list[str]:
    if isinstance(node, Mapping):
        lines = CROP_OPS.problems(node, where=where)
        # hints at their ends would name keys without what lies above the transform
        return [line.partition(f"; set {where}")[0].partition(f" (~{where}")[0] for line in lines]
    if node is None or callable(node) or isinstance(node, DrawnOp):
        return []
    return [f"{where}={node}: an op, {{name: ..., ...}}, or null for none"]


def _built(where: str, node: Any) -> DrawnOp:
    try:
        op: Any = CROP_OPS.build(node) if isinstance(node, Mapping) else node
    except ValueError as error:
        lines = [f"{where}.{line}" for line in str(error).splitlines()]
        raise ValueError("\n".join(lines)) from error
    if isinstance(op, DrawnOp):
        return op
    if not callable(op):
        raise ValueError(
            f"{where}: {type(op).__name__} has to be called with a crop and a random generator"
        )
    return CalledOp(op, where)
