"""Outputs of a trunk's inner layers, by the layers' names."""

from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor, nn

POOLED = "pooled"  # what the trunk itself returns


def layer_outputs(trunk: nn.Module, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """One pass through the trunk, keeping what some layers give.

    Args:
        trunk: any trunk.
        images: (N, 3, H, W).
        layers: names of submodules (``layer3``, ``blocks.5``); ``pooled`` for its own output.

    Returns:
        By layer: (N, D) for ``pooled``, and whatever the submodule returns, (N, C, H', W') in a
        ResNet. ``relu`` of a ResNet is the stem before its pooling.

    Raises:
        ValueError: the trunk has no such layer, or does not use it.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> None:
        handles.append(
            submodule(trunk, name).register_forward_hook(
                lambda module, inputs, output: found.__setitem__(name, output)
            )
        )

    handles: list[torch.utils.hooks.RemovableHandle] = []
    layers = list(layers)
    try:
        for name in layers:
            if name != POOLED:
                keep(name)
        found[POOLED] = trunk(images)
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if name not in found:
            raise ValueError(f"layer={name}: the trunk has this layer and does not use it")
    return {name: found[name] for name in layers}


@torch.no_grad()
def layer_shapes(
    trunk: nn.Module, layers: Iterable[str], image_size: int
) -> dict[str, int | tuple[int, ...]]:
    """What a head on a layer gets for one image: D, or the shape of a map.

    Args:
        trunk: any trunk with ``out_dim``.
        layers: as in `layer_outputs`.
        image_size: side of the images, pixels.

    Raises:
        ValueError: the trunk has no ``out_dim``.
    """
    inner = set(layers) - {POOLED}
    out_dim = getattr(trunk, "out_dim", None)
    if not isinstance(out_dim, Integral):
        raise ValueError(f"{type(trunk).__name__} has no out_dim, the number of its features")
    shapes: dict[str, int | tuple[int, ...]] = {POOLED: int(out_dim)}
    if not inner:
        return shapes
    device = next(trunk.parameters()).device
    was_training = trunk.training
    outputs = layer_outputs(
        trunk.eval(), torch.zeros(1, 3, image_size, image_size, device=device), inner
    )
    trunk.train(was_training)
    for name, output in outputs.items():
        shape = tuple(output.shape[1:])
        shapes[name] = shape[0] if len(shape) == 1 else shape
    return shapes


def submodule(trunk: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises:
        ValueError: there is none.
    """
    try:
        if not name:
            raise AttributeError
        return trunk.get_submodule(name)
    except AttributeError:
        children = [child for child, _ in trunk.named_children()]
        raise ValueError(
            f"layer={name}: the trunk has no such layer; {POOLED}, or one of {', '.join(children)}"
        ) from None
