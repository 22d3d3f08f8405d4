"""Weights of a trained model under this platform's names, wherever they come from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssl_platform.errors import CheckpointError


@dataclass(frozen=True)
class Weights:
    """What a source holds, every key of it accounted for.

    Attributes:
        source: as it was asked for: a run, a file, a URL or ``zoo:NAME``.
        path: the file that was read.
        format: whose layout it is: ``ssl_platform``, ``swav``, ``vissl``, ``torchvision``, ...
        sha256: of the file, hexadecimal.
        trunk: by the names of this platform's trunk, which are torchvision's; without a prefix.
        head: by the names of a `PrototypeHead`; empty when the source has none.
        classifier: ``weight`` (classes, D) and ``bias`` (classes,) of a linear layer, if any.
        unused: keys of the source that are known and not needed, and what each is.
        trunk_node: config of the trunk as far as the source tells it, ``{name: ResNet, ...}``.
    """

    source: str
    path: Path
    format: str
    sha256: str
    trunk: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    classifier: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    trunk_node: dict[str, Any] | None = None


def read_weights(source: str) -> Weights:
    """Read the weights of a run, a checkpoint, a file, a URL or a model of the catalogue.

    Args:
        source: ``runs/<name>``, ``runs/<name>/checkpoints/<one of them>``, a file in a format that
            a reader knows, ``https://...``, ``file://...`` or ``zoo:swav_800ep``.

    Raises:
        CheckpointError: there is no such thing, or it cannot be read or understood; the message
            begins with the source.
    """
    raise CheckpointError(f"{source}: no reader yet")


def load_trunk(trunk: nn.Module, weights: Weights, *, allow_partial: bool) -> None:
    """Put the weights into a trunk; ``num_batches_tracked`` may be missing.

    Raises:
        CheckpointError: a key is missing, left over or of another shape, unless ``allow_partial``;
            the message names the first of them and says which trunk the weights would fit.
    """
    raise CheckpointError(f"{weights.source}: no loader yet")
