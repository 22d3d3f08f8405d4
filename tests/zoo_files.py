"""Synthetic files with the exact names, shapes and types of released ones."""

import json
from pathlib import Path

import torch
from torch import Tensor

VECTORS = Path(__file__).parent / "vectors" / "checkpoint_keys.json"
SMALL = 8  # channels of a shrunken stem, the fewest that a ResNet takes


def released_state(row: str, *, shrink: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Random weights in the layout of a released file, in its order.

    Args:
        row: ``swav_resnet50``, ``swav_resnet50w2``, ``swav_resnet50w4``, ``swav_resnet50w5`` or
            ``deepclusterv2_or_selav2_resnet50``.
        shrink: all widths so small that the stem has 8 channels: the same names and numbers of
            dimensions, where the real one takes gigabytes.
    """
    keys = json.loads(VECTORS.read_text())["keys"][row]
    factor = next(shape[0] for name, shape, _ in keys if name == "module.conv1.weight") // SMALL
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape, dtype in keys:
        if shrink:
            shape = [size if size in (1, 3, 7) else max(size // factor, 2) for size in shape]
        state[name] = _values(name, shape, getattr(torch, dtype), generator)
    return state


def _values(name: str, shape: list[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Values of the size that trained weights have, so that features stay finite."""
    if not shape:
        return torch.tensor(1000, dtype=dtype)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return torch.rand(shape, generator=generator, dtype=dtype) * 0.5 + 0.5
    fan_in = max(1, int(torch.tensor(shape[1:]).prod()))
    return torch.randn(shape, generator=generator, dtype=dtype) / fan_in**0.5


def write_released(path: Path, row: str, *, shrink: bool = False, seed: int = 0) -> Path:
    """The file itself: flat, as it was released."""
    torch.save(released_state(row, shrink=shrink, seed=seed), path)
    return path


def row_of(model: str) -> str:
    """The row of `released_state` that a model of the catalogue has the layout of."""
    if model.startswith(("deepclusterv2", "selav2")):
        return "deepclusterv2_or_selav2_resnet50"
    wide = next((width for width in ("w2", "w4", "w5") if f"RN50{width}" in model), "")
    return f"swav_resnet50{wide}"
