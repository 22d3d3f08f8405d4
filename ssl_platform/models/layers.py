"""What the inner layers of a trunk give, by the layers' names."""

from collections.abc import Iterable
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform.ops.image_size import ImageSize, height_and_width

POOLED = "pooled"  # what the trunk itself returns


class LayerOutputs:
    """A trunk together with forward hooks that keep what some of its layers give.

    The hooks are registered once and keep something only during a call of this object.

    Args:
        trunk: any trunk.
        layers: names of submodules (``layer3``, ``blocks.5``); ``pooled`` for its own output.

    Raises:
        ValueError: the trunk has no such layer.
    """

    def __init__(self, trunk: nn.Module, layers: Iterable[str]):
        self.trunk, self.layers = trunk, list(layers)
        self._outputs: dict[str, Tensor] | None = None
        self._handles = [
            submodule(trunk, name).register_forward_hook(partial(self._keep, name))
            for name in self.layers
            if name != POOLED
        ]

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if self._outputs is not None:
            self._outputs[name] = output

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """One pass through the trunk.

        Args:
            images: (N, 3, H, W).

        Returns:
            By layer: (N, D) for ``pooled``, and whatever the submodule returns, (N, C, H', W') in a
            ResNet. ``relu`` of a ResNet is the stem before its pooling.

        Raises:
            ValueError: the trunk has the layer and does not use it.
        """
        outputs: dict[str, Tensor] = {}
        self._outputs = outputs
        try:
            outputs[POOLED] = self.trunk(images)
        finally:
            self._outputs = None
        for name in self.layers:
            if name not in outputs:
                raise ValueError(f"layer={name}: the trunk has this layer and does not use it")
        return {name: outputs[name] for name in self.layers}

    def remove(self) -> None:
        """Take the hooks off the trunk."""
        for handle in self._handles:
            handle.remove()


@torch.no_grad()
def layer_shapes(
    trunk: nn.Module, layers: Iterable[str], image_size: ImageSize
) -> dict[str, int | tuple[int, ...]]:
    """What a head on a layer gets for one image: D, or the shape of a map.

    Args:
        trunk: any trunk with ``out_dim``.
        layers: as in `LayerOutputs`.
        image_size: side of the images, or their height and width, pixels.

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
    outputs = LayerOutputs(trunk.eval(), inner)
    maps = outputs(torch.zeros(1, 3, *height_and_width(image_size), device=device))
    outputs.remove()
    trunk.train(was_training)
    for name, output in maps.items():
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
