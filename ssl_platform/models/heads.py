"""Heads: from trunk features to what a loss reads."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_platform.registry import HEADS


class Prototyped(NamedTuple):
    """Output of a `PrototypeHead` for N rows."""

    embeddings: Tensor  # (N, D), unit length
    scores: list[Tensor]  # one (N, K) tensor of cosines per set of prototypes


@HEADS.register()
class PrototypeHead(nn.Module):
    """Project, normalise, and compare with unit prototypes (SwAV, arXiv:2006.09882, section 3).

    Linear - BatchNorm - ReLU - Linear - L2 normalisation - prototypes without bias. The prototypes
    are set to unit length in place before every forward, so the gradient is that of the unit
    vectors.

    Args:
        in_dim: width of the trunk's features.
        hidden_dim: width of the hidden layer; 0 makes the projection a single linear layer.
        out_dim: D, width of the embeddings.
        num_prototypes: K of each set of prototypes; one number per set.
        batch_norm: false leaves the BatchNorm out (RN50-w5).
    """

    def __init__(
        self,
        in_dim: int,
        *,
        hidden_dim: int,
        out_dim: int,
        num_prototypes: list[int],
        batch_norm: bool,
    ):
        super().__init__()
        if not num_prototypes or min(num_prototypes) < 2:
            raise ValueError(
                f"num_prototypes={num_prototypes}: one number per set, each at least 2, e.g. [3000]"
            )
        if out_dim < 1 or hidden_dim < 0:
            raise ValueError(
                f"out_dim={out_dim}, hidden_dim={hidden_dim}: positive widths, e.g. 128 and 2048"
            )
        self.out_dim, self.num_prototypes = out_dim, num_prototypes
        if hidden_dim == 0:
            self.projection = nn.Sequential(nn.Linear(in_dim, out_dim))
        else:
            self.projection = nn.Sequential(
                nn.Linear(in_dim, hidden_dim),
                *([nn.BatchNorm1d(hidden_dim)] if batch_norm else []),
                nn.ReLU(inplace=True),
                nn.Linear(hidden_dim, out_dim),
            )
        self.prototypes = nn.ModuleList(nn.Linear(out_dim, k, bias=False) for k in num_prototypes)

    def forward(self, features: Tensor) -> Prototyped:
        self._normalize_prototypes()
        embeddings = F.normalize(self.projection(features), dim=1)
        return Prototyped(embeddings, [prototypes(embeddings) for prototypes in self.prototypes])

    @torch.no_grad()
    def _normalize_prototypes(self) -> None:
        for weight in self.prototypes.parameters():
            weight.copy_(F.normalize(weight, dim=1))
