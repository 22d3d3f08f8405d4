"""Outputs of the parts of a batch, joined to those of the whole batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import (
    keystr,
    tree_flatten_with_path,
    tree_leaves,
    tree_map,
    tree_map_only,
)

PLAIN = (type(None), bool, int, float, str)


def without_rows(name: str, outputs: Any, num_rows: int) -> list[str]:
    """What cannot be joined: one line for each, beginning with its place.

    Args:
        name: of the outputs.
        outputs: by head, tensors with one row for each row of the heads' input, (``num_rows``,
            ...), in tuples, lists and dicts of any depth; None and plain values.
    """
    return [
        f"{name}{_place(path)} is {_kind(leaf)}, and micro-batches need tensors with one row for "
        f"each crop ({num_rows} here), in tuples, lists or dicts; data.micro_batch=null takes "
        "anything"
        for path, leaf in tree_flatten_with_path(outputs)[0]
        if not _has_rows(leaf, num_rows) and not isinstance(leaf, PLAIN)
    ]


def _has_rows(leaf: Any, num_rows: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == num_rows


def _place(path: Any) -> str:
    return keystr(path).replace("['", ".").replace("']", "")


def _kind(leaf: Any) -> str:
    return f"a tensor {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__


def cut_off(outputs: Any) -> Any:
    """The same tensors as leaves, which require a gradient where they did."""
    return tree_map_only(
        Tensor, lambda leaf: leaf.detach().requires_grad_(leaf.requires_grad), outputs
    )


def join(parts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Outputs of the whole batch; gradients flow through to the parts.

    Args:
        parts: outputs of its consecutive images, one structure for all; rows are crop after crop.
        sizes: images of each part.
    """

    def joined(*leaves: Any) -> Any:
        if not isinstance(leaves[0], Tensor):
            return leaves[0]
        by_crop = [leaf.unflatten(0, (-1, n)) for leaf, n in zip(leaves, sizes, strict=True)]
        return torch.cat(by_crop, dim=1).flatten(0, 1)

    first, *others = parts
    return tree_map(joined, first, *others)


def pairs(outputs: Any, others: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of two outputs of one structure, place by place."""
    for leaf, other in zip(tree_leaves(outputs), tree_leaves(others), strict=True):
        if isinstance(leaf, Tensor):
            yield leaf, other
