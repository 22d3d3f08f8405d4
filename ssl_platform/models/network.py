"""A trunk with its heads, and how crops go through them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform.models.layers import POOLED, LayerOutputs


class Network(nn.Module):
    """One trunk pass per crop size, then one pass of each head over all crops.

    So the trunk's batch norms see one batch per resolution and the heads' batch norms one batch in
    all, as in the official SwAV code. A pass for each crop would give other statistics.

    Args:
        trunk: images to features.
        heads: features to outputs, by name.
        layers: layer of the trunk that a head reads, by the head's name; the trunk's own output
            where it says nothing.
        freeze_trunk: the trunk gets no gradient.
    """

    def __init__(
        self,
        trunk: nn.Module,
        heads: Mapping[str, nn.Module],
        *,
        layers: Mapping[str, str] | None = None,
        freeze_trunk: bool = False,
    ):
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleDict(heads)
        self.layers = {name: (layers or {}).get(name, POOLED) for name in heads}
        self.freeze_trunk = freeze_trunk

    @cached_property
    def _layer_outputs(self) -> LayerOutputs:
        # made by the first pass: until then batch norms may be exchanged for synchronised ones
        return LayerOutputs(self.trunk, set(self.layers.values()))

    def forward(self, crops: Sequence[Tensor]) -> dict[str, Any]:
        """Map M crops, each (B, C, H, W), crops of one size adjacent, to the outputs by head name.

        Rows of an output are crop after crop: (M * B, ...).
        """
        groups = (list(group) for _, group in groupby(crops, key=lambda crop: crop.shape[-2:]))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_trunk):
            parts = [self._layer_outputs(torch.cat(group)) for group in groups]
        features = {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}
        return {name: head(features[self.layers[name]]) for name, head in self.heads.items()}
