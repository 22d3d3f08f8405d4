"""Weights of a trained model under this platform's names, wherever they come from."""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform.disk import sha256_of
from ssl_platform.errors import CheckpointError
from ssl_platform.legible import without_secrets
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.registry import HEADS
from ssl_platform.zoo import catalogue
from ssl_platform.zoo.architecture import head_node, resnet_node, trunk_option
from ssl_platform.zoo.fetch import cache_folder, fetch
from ssl_platform.zoo.files import DamagedFileError, read_content
from ssl_platform.zoo.layouts import Parts, sort_keys
from ssl_platform.zoo.soundness import require_sound

LONGEST_NAME = 255  # bytes, of a file
ZOO = "zoo:"  # a model of the catalogue by its name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """What a source holds, every key of it accounted for.

    Attributes:
        source: as it was asked for: a run, a file, a URL or ``zoo:NAME``.
        path: the file that was read; of a run, the checkpoint.
        format: whose layout it is: ``ssl_platform``, ``swav``, ``vissl``, ``torchvision``, ...
        sha256: of the file, hexadecimal; of a run, of its model's names and tensors.
        trunk: by the names of this platform's trunk, which are torchvision's; without a prefix.
        head: by the names of a `PrototypeHead`; empty when the source has none.
        classifier: ``weight`` (classes, D) and ``bias`` (classes,) of a linear layer, if any.
        unused: keys of the source that are known and not needed, and what each is.
        trunk_node: config of the trunk as far as the source tells it, ``{name: ResNet, ...}``.
        plugins: modules from outside that the trunk may be of.
        origin: key in the source by part and name here: ``trunk.conv1.weight``.
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
    plugins: tuple[str, ...] = ()
    origin: dict[str, str] = field(default_factory=dict)

    def prototype_head(self) -> PrototypeHead:
        """The head, with its weights, in eval mode.

        Raises:
            CheckpointError: there is none, or it is not a whole `PrototypeHead`.
        """
        node = head_node(self.head)
        if node is None:
            raise CheckpointError(f"{self.source}: has no prototypes")
        try:
            head = HEADS.build(node, self.head["projection.0.weight"].shape[1])
            head.load_state_dict(self.head)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{self.source}: its head is no whole one ({reason})") from error
        assert isinstance(head, PrototypeHead)
        return head.eval()


def read_weights(source: str) -> Weights:
    """Read the weights of a run, a checkpoint, a file, a URL or a model of the catalogue.

    Args:
        source: ``runs/<name>``, ``runs/<name>/checkpoints/<one of them>``, a file in a format that
            a reader knows, ``https://...``, ``file://...`` or ``zoo:swav_800ep``.

    Raises:
        CheckpointError: there is no such thing, or it cannot be read or understood; the message
            begins with the source.
    """
    shown = without_secrets(source)
    try:
        return replace(_read(source), source=shown)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{shown}: ")
        raise CheckpointError(f"{shown}: {reason}") from error


def _read(source: str) -> Weights:
    if source.startswith(ZOO):
        return _of_fetched(source, catalogue.model(source.removeprefix(ZOO)).fetch())
    if "://" in source:
        return _of_fetched(source, fetch(source))
    path = Path(source)
    if "\0" in source or len(os.fsencode(path.name)) > LONGEST_NAME:
        raise CheckpointError("no file has such a name")
    return _of_run(source) if path.is_dir() else _of_file(source, path)


def _of_fetched(source: str, path: Path) -> Weights:
    try:
        return _of_file(source, path)
    except DamagedFileError as error:
        if not path.is_relative_to(cache_folder()):
            raise
        reason = str(error).removeprefix(f"{path}: ").removesuffix("; fetch it again")
        raise CheckpointError(
            f"{path} in the cache is {reason}; remove it and {path.name}.sha256 beside it, then it "
            "is fetched anew"
        ) from error


def _of_run(source: str) -> Weights:
    from ssl_platform.trained_run import TrainedRun  # much to import, and files do without

    try:
        run = TrainedRun.open(source)
    except ValueError as error:
        raise CheckpointError(str(error).removeprefix("checkpoint=")) from error
    state = run.state["model"]
    parts = sort_keys(state)
    require_sound(parts)
    weights = _weights(source, run.checkpoint, parts, _fingerprint(state), run.options.trunk)
    return replace(weights, plugins=tuple(run.options.plugins))


def _of_file(source: str, path: Path) -> Weights:
    if not path.exists():
        raise CheckpointError(
            f"no such file or run (working directory: {Path.cwd()}); a model of the catalogue is "
            "zoo:NAME"
        )
    parts = sort_keys(read_content(path))
    require_sound(parts)
    return _weights(source, path, parts, sha256_of(path), resnet_node(parts.trunk))


def _weights(
    source: str, path: Path, parts: Parts, sha256: str, trunk_node: dict[str, Any] | None
) -> Weights:
    return Weights(source=source, path=path, sha256=sha256, trunk_node=trunk_node, **vars(parts))


def _fingerprint(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_trunk(trunk: nn.Module, weights: Weights, *, allow_partial: bool) -> None:
    """Put the weights into a trunk; ``num_batches_tracked`` may be missing.

    Raises:
        CheckpointError: a key is missing, left over or of another shape, unless ``allow_partial``;
            the message names the first of them and says which trunk the weights would fit.
    """
    if not weights.trunk:
        raise CheckpointError(f"{weights.source}: holds no trunk, only {_described(weights)}")
    wanted = trunk.state_dict()
    fitting = {
        name: value
        for name, value in weights.trunk.items()
        if name in wanted and wanted[name].shape == value.shape
    }
    problems = misfits(wanted, weights.trunk)
    if problems and not (allow_partial and fitting):
        raise CheckpointError(_told(weights, len(fitting), len(wanted), problems))
    if problems:
        logger.warning("%s", _told(weights, len(fitting), len(wanted), problems))
    trunk.load_state_dict(fitting, strict=False)


def misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The first key of each kind that does not fit, in words; none when all do."""
    shapes = [
        f"{name} has the shape {list(given[name].shape)}, the trunk's has {list(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    missing = [
        f"{name} is missing"
        for name in wanted
        if name not in given and not name.endswith("num_batches_tracked")
    ]
    left_over = [f"{name} is left over" for name in given if name not in wanted]
    return [kind[0] for kind in (shapes, missing, left_over) if kind]


def _told(weights: Weights, num_fitting: int, num_wanted: int, problems: list[str]) -> str:
    line = (
        f"{weights.source}: {num_fitting} of the trunk's {num_wanted} tensors fit "
        f"({'; '.join(problems)})"
    )
    node = weights.trunk_node
    return line if node is None else f"{line}; the weights are those of {trunk_option(node)}"


def _described(weights: Weights) -> str:
    kinds = {"a head": weights.head, "a classifier": weights.classifier, "others": weights.unused}
    return " and ".join(kind for kind, keys in kinds.items() if keys)
