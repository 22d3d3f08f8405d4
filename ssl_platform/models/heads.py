"""Heads: from trunk features to what a loss reads."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import HEADS


class Prototyped(NamedTuple):
    """Output of a `PrototypeHead` for N rows."""

    embeddings: Tensor  # (N, D), unit length
    scores: list[Tensor]  # one (N, K) tensor of cosines per set of prototypes


@HEADS.register()
class MLPHead(nn.Sequential):
    """(N, in_dim) features to (N, out_dim) by linear layers with ReLUs between them.

    Args:
        in_dim: width of the trunk's features.
        hidden_dims: width of each hidden layer; none makes it a single linear layer.
        out_dim: width of the output.
        batch_norm: normalise each hidden layer before its ReLU.
        normalize: set each row of the output to unit length.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        hidden_dims: list[Annotated[int, Ge(1), "e.g. 2048"]],
        out_dim: Annotated[int, Ge(1), "e.g. 128"],
        batch_norm: bool,
        normalize: bool,
    ):
        layers: list[nn.Module] = []
        for width in hidden_dims:
            layers += [
                nn.Linear(in_dim, width, bias=not batch_norm),  # else the batch norm has one
                *([nn.BatchNorm1d(width)] if batch_norm else []),
                nn.ReLU(inplace=True),
            ]
            in_dim = width
        layers.append(nn.Linear(in_dim, out_dim))
        super().__init__(*layers, *([UnitLength()] if normalize else []))


class UnitLength(nn.Module):
    """Rows of length 1."""

    def forward(self, rows: Tensor) -> Tensor:
        """(N, D) rows, each divided by its length."""
        return F.normalize(rows, dim=1)


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
        hidden_dim: Annotated[int, Ge(0), "e.g. 2048"],
        out_dim: Annotated[int, Ge(1), "e.g. 128"],
        num_prototypes: list[int],
        batch_norm: bool,
    ):
        super().__init__()
        if not num_prototypes or min(num_prototypes) < 2:
            raise ValueError(
                f"num_prototypes={num_prototypes}: one number per set, each at least 2, e.g. [3000]"
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
        """Embeddings of (N, in_dim) features, and their cosines to each set of prototypes."""
        self.normalize_prototypes()
        embeddings = self.embed(features)
        return Prototyped(embeddings, [prototypes(embeddings) for prototypes in self.prototypes])

    def embed(self, features: Tensor) -> Tensor:
        """(N, in_dim) features to (N, D) embeddings of unit length."""
        return F.normalize(self.projection(features), dim=1)

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Set every prototype to unit length, in place."""
        for weight in self.prototypes.parameters():
            weight.copy_(F.normalize(weight, dim=1))

    def drop_prototype_gradients(self) -> None:
        """Leave the prototypes out of the coming optimizer step, its weight decay included."""
        for weight in self.prototypes.parameters():
            weight.grad = None


@dataclass(frozen=True)
class FreezePrototypes:
    """Keeps the prototypes of a head as they are at the beginning of a training.

    Args:
        head: name of the `PrototypeHead`.
        steps, epochs: the prototypes are updated when both are over.
    """

    head: str
    steps: int
    epochs: int

    def applies(self, *, position: int, epoch: int) -> bool:
        """Whether the prototypes are still kept as they are."""
        return position < self.steps or epoch < self.epochs

    def __call__(self, model: SSLModel, *, position: int, epoch: int) -> None:
        """To be called between the backward pass and the optimizer, in every step."""
        if self.applies(position=position, epoch=epoch):
            prototype_head(model, self.head).drop_prototype_gradients()


def prototype_head(model: SSLModel, name: str) -> PrototypeHead:
    """The head of that name.

    Raises:
        ValueError: the model has no such head, or it has no prototypes.
    """
    head = dict(model.heads.items()).get(name)
    if not isinstance(head, PrototypeHead):
        raise ValueError(
            f"head={name}: has to be a PrototypeHead; the model's heads are {sorted(model.heads)}"
        )
    return head


def watched_head(model: SSLModel, name: str) -> PrototypeHead:
    """The head whose prototypes a hook watches.

    Raises:
        ValueError: there are none, and there is no use in such a hook.
    """
    try:
        return prototype_head(model, name)
    except ValueError as error:
        raise ValueError(
            f"{error}; a method without prototypes is watched by hooks=default"
        ) from error
