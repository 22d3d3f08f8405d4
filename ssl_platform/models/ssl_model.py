"""Trunk and heads as one module."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn


class SSLModel(nn.Module):
    """One trunk pass per crop size, then one pass of each head over all crops.

    So the trunk's batch norms see one batch per resolution and the heads' see one in all, as in the
    official SwAV code; forwarding crop by crop gives other statistics.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleDict(heads)

    def forward(self, crops: Sequence[Tensor]) -> dict[str, Any]:
        """Map M crops, each (B, C, H, W), crops of one size adjacent, to the outputs by head name.

        Rows of an output are crop after crop: (M * B, ...).
        """
        groups = (list(group) for _, group in groupby(crops, key=lambda crop: crop.shape[-1]))
        features = torch.cat([self.trunk(torch.cat(group)) for group in groups])
        return {name: head(features) for name, head in self.heads.items()}
