"""Check tensors of unknown origin: weights are plain and finite, and none of them is missing."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.layouts import Parts

# a module of a numbered list; lists may be nested
NUMBERED = re.compile(r"(?:^|(?<=\.))(?:layer[1-4]|layers|blocks|stages)\.(\d+)\.")
FLOATING = ("weight", "bias", "running_mean", "running_var")
RESNET = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # parts that all of them have


def require_sound(parts: Parts) -> None:
    """Check every tensor that is used.

    Raises:
        CheckpointError: one of them is no plain tensor, is larger than its file, or holds values
            that no weight has; the message begins with its name.
    """
    for part in ("trunk", "head", "classifier"):
        for name, tensor in getattr(parts, part).items():
            defect = defect_of(name, tensor)
            if defect is not None:
                raise CheckpointError(f"{parts.origin.get(f'{part}.{name}', name)} {defect}")


def defect_of(name: str, tensor: Tensor) -> str | None:
    """What is wrong with a tensor. The cheap checks come first: they make the others safe."""
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided:
        return "is sparse, nested or quantized; wanted are plain tensors"
    if tensor.is_meta:
        return "has a shape and no values: it was saved from the device meta"
    if tensor.numel() == 0:
        return f"has no values; its shape is {tuple(tensor.shape)}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return (
            f"has {tensor.numel():,} elements, of which the file holds "
            f"{tensor.untyped_storage().nbytes() // tensor.element_size():,}; save .contiguous() "
            "tensors"
        )
    if name.endswith(FLOATING) and not tensor.is_floating_point():
        return f"has the type {tensor.dtype}; weights are floating point numbers"
    is_float8 = tensor.element_size() == 1 and tensor.is_floating_point()
    values = tensor.float() if is_float8 else tensor  # torch compares no float8
    bad = int(values.isfinite().logical_not().sum())
    if bad:
        return f"has {bad:,} of {tensor.numel():,} values that are NaN or infinite"
    if name.endswith("running_var") and bool((values < 0).any()):
        return "has negative values, which no variance has"
    return None


def first_gap(names: Collection[str]) -> str | None:
    """The first part that is missing in a trunk of unknown architecture, judged by its names.

    Lists of modules are numbered from 0 without a gap; a ResNet has a stem and four stages; a
    tensor that all blocks but one have is missing in that one.
    """
    lists: dict[str, set[int]] = defaultdict(set)
    leaves: dict[str, set[str]] = defaultdict(set)  # names of tensors by block
    for name in names:
        matches = list(NUMBERED.finditer(name))
        for match in matches:
            lists[name[: match.start(1) - 1]].add(int(match[1]))
        leaf = name[matches[0].end() :] if matches else ""
        if leaf and not leaf[0].isdigit() and "downsample" not in leaf:
            leaves[name[: matches[0].end() - 1]].add(leaf)
    parts = {name.split(".")[0] for name in names}
    gaps = [part for part in RESNET if part not in parts and not parts.isdisjoint(RESNET)]
    for place, numbers in lists.items():
        gaps += [f"{place}.{n}" for n in range(len(numbers)) if n not in numbers]
    return next(iter([*gaps, *_missing_in_one_block(leaves)]), None)


def _missing_in_one_block(leaves: dict[str, set[str]]) -> Iterator[str]:
    """Tensors that one block lacks while at least two others, all of its kind, have them."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for block in leaves:
        kinds[re.sub(r"layer[1-4]$", "layer", block.rpartition(".")[0])].append(block)
    for kind, blocks in kinds.items():
        if kind not in ("layer", "blocks", "model.blocks") or len(blocks) < 3:
            continue
        counts = Counter(leaf for block in blocks for leaf in leaves[block])
        usual = [leaf for leaf, count in counts.items() if count == len(blocks) - 1]
        yield from (
            f"{block}.{leaf}" for leaf in usual for block in blocks if leaf not in leaves[block]
        )
