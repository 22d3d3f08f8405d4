"""Read the weights of a trained model from any source, under this platform's names."""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ssl_platform.console import without_secrets
from ssl_platform.console.working import working
from ssl_platform.errors import CheckpointError, counted
from ssl_platform.files import sha256_of
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.registry import HEADS, TRUNKS, load_components
from ssl_platform.zoo import catalogue
from ssl_platform.zoo.adapted import adapted, first_layer_of_other_channels
from ssl_platform.zoo.architecture import head_node, resnet_node, trunk_option
from ssl_platform.zoo.fetch import cache_folder, fetch
from ssl_platform.zoo.files import DamagedFileError, read_content
from ssl_platform.zoo.layouts import sort_keys
from ssl_platform.zoo.soundness import defect_of, require_sound

if TYPE_CHECKING:  # for torch.hub, which then needs fewer packages
    from ssl_platform.config.options import Whose

LONGEST_NAME = 255  # bytes, of a file
ZOO = "zoo:"  # a model of the catalogue by its name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """What a source holds; each of its keys is in one part or in ``unused``.

    Attributes:
        source: as the user typed it: a run, a file, a URL or ``zoo:NAME``.
        path: the file that was read; of a run, the checkpoint.
        format: name of the layout: ``ssl_platform``, ``swav``, ``vissl``, ``torchvision``, ...
        sha256: of the file, hexadecimal; of a run, of its model's names and tensors.
        trunk: by the names of this platform's trunk, which are torchvision's; without a prefix.
        head: by the names of a `PrototypeHead`; empty when the source has none.
        classifier: ``weight`` (classes, D) and ``bias`` (classes,) of a linear layer, if any.
        unused: keys of the source that are known but not needed, and what each is.
        trunk_node: config of the trunk, ``{name: ResNet, ...}``; None where it is not known.
        plugins: modules that a run was trained with. They are not imported.
        origin: key in the source, by part and name here: ``trunk.conv1.weight``.
        whose: ``student`` or ``teacher`` of a run that has both, else empty.
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
    whose: str = ""

    @property
    def shown(self) -> str:
        """The source, and whose weights of a run with a teacher these are."""
        return f"{self.source} ({self.whose})" if self.whose else self.source

    @property
    def identity(self) -> dict[str, str]:
        """What the results of these weights say of them."""
        known = {"source": self.source, "format": self.format, "sha256": self.sha256}
        return known | ({"whose": self.whose} if self.whose else {})

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


def read_weights(source: str, whose: "Whose | None" = None) -> Weights:
    """Read the weights of a run, a checkpoint, a file, a URL or a model of the catalogue.

    Args:
        source: ``runs/<name>``, ``runs/<name>/checkpoints/<one of them>``, a file in a format that
            a reader knows, ``https://...``, ``file://...`` or ``zoo:swav_800ep``.
        whose: of a run with a teacher; None for those that the run itself evaluates.

    Raises:
        CheckpointError: there is no such thing, or it cannot be read or understood; the message
            begins with the source.
    """
    shown = without_secrets(source)
    try:
        with working(f"reading the weights {shown}"):
            return replace(_read(source, whose), source=shown)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{shown}: ")
        raise CheckpointError(f"{shown}: {reason}") from error


def _read(source: str, whose: "Whose | None") -> Weights:
    path = Path(source)
    is_elsewhere = "://" in source or source.startswith(ZOO)
    is_no_path = "\0" in source or len(os.fsencode(path.name)) > LONGEST_NAME
    if not is_elsewhere and not is_no_path and path.is_dir():
        return _of_run(source, whose)
    if whose is not None:
        raise CheckpointError(f"weights={whose}: only a run has that choice; leave weights out")
    if source.startswith(ZOO):
        return _of_fetched(catalogue.model(source.removeprefix(ZOO)).fetch())
    if "://" in source:
        return _of_fetched(fetch(source))
    if is_no_path:
        raise CheckpointError("no file has such a name")
    return _of_file(path)


def _of_fetched(path: Path) -> Weights:
    try:
        return _of_file(path)
    except DamagedFileError as error:
        if not path.is_relative_to(cache_folder()):
            raise
        reason = str(error).removeprefix(f"{path}: ").removesuffix("; fetch it again")
        raise CheckpointError(
            f"{path} in the cache is {reason}; remove it and {path.name}.sha256 beside it, then it "
            "is fetched anew"
        ) from error


def _of_run(source: str, whose: "Whose | None") -> Weights:
    from ssl_platform.zoo.trained_run import SavedRun

    try:
        run = SavedRun.open(source)
        chosen = run.network(whose)
    except ValueError as error:
        raise CheckpointError(str(error).removeprefix("checkpoint=")) from error
    parts = sort_keys(chosen.state)
    parts.origin = {name: f"{chosen.prefix}{key}" for name, key in parts.origin.items()}
    parts.unused = {f"{chosen.prefix}{key}": what for key, what in parts.unused.items()}
    parts.unused |= dict.fromkeys(chosen.others, "of the other of student and teacher")
    require_sound(parts)
    node, plugins = run.config.get("trunk"), run.config.get("plugins")
    return Weights(
        source=source,
        path=run.checkpoint,
        sha256=_fingerprint(chosen.state),
        trunk_node=node if isinstance(node, dict) and isinstance(node.get("name"), str) else None,
        plugins=tuple(map(str, plugins)) if isinstance(plugins, list) else (),
        whose=chosen.whose,
        **vars(parts),
    )


def _of_file(path: Path) -> Weights:
    if not path.exists():
        raise CheckpointError(
            f"no such file or run (working directory: {Path.cwd()}); a model of the catalogue is "
            "zoo:NAME"
        )
    parts = sort_keys(read_content(path))
    require_sound(parts)
    node = resnet_node(parts.trunk)
    return Weights(str(path), path, sha256=sha256_of(path), trunk_node=node, **vars(parts))


def _fingerprint(state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not isinstance(tensor, Tensor) or defect_of(name, tensor) is not None:
            raise CheckpointError(f"its model holds {name}, which is no plain and finite tensor")
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unknown_trunk(weights: Weights) -> str | None:
    """Why the trunk of a run cannot be built: a plug-in that is not imported defines it.

    A run's plug-ins are the code of whoever made its directory. Only the user's own command
    imports code.
    """
    from ssl_platform.zoo.trained_run import plugins_hint

    load_components()
    node = weights.trunk_node
    if node is None or node["name"] in TRUNKS.names():
        return None
    return f"there is no trunk {node['name']}{plugins_hint(weights.plugins)}"


def build_trunk(weights: Weights) -> nn.Module:
    """A new trunk of the source's architecture, with random weights.

    Raises:
        CheckpointError: it is of a plug-in, or cannot be built.
    """
    node, reason = weights.trunk_node, unknown_trunk(weights)
    assert node is not None
    if reason is None and any(_has_too_many(option, weights.trunk) for option in node.values()):
        reason = f"its trunk has far more blocks than the {len(weights.trunk)} tensors are for"
    try:
        if reason is None:
            trunk: nn.Module = TRUNKS.build(node)
            return trunk
    except (ValueError, RuntimeError) as error:
        reason = f"its trunk cannot be built ({' '.join(str(error).split())})"
    raise CheckpointError(f"{weights.source}: {reason}")


def _has_too_many(option: Any, trunk: Mapping[str, Tensor]) -> bool:
    """Whether an option lists numbers of blocks, and there are fewer tensors than blocks."""
    if not isinstance(option, list) or not all(isinstance(number, int) for number in option):
        return False
    return sum(option) > max(1000, len(trunk))


def load_trunk(
    trunk: nn.Module, weights: Weights, *, allow_partial: bool, adapt_channels: bool = False
) -> None:
    """Put the weights into a trunk; ``num_batches_tracked`` may be missing.

    Args:
        adapt_channels: fit the first layer to images of another number of channels, see
            `zoo.adapted`.

    Raises:
        CheckpointError: a key is missing, left over or of another shape, unless ``allow_partial``;
            the message names the first of them and says which trunk the weights would fit.
    """
    if not weights.trunk:
        raise CheckpointError(f"{weights.source}: holds no trunk, only {_contents(weights)}")
    wanted, given = trunk.state_dict(), weights.trunk
    first = first_layer_of_other_channels(wanted, given)
    if first is not None and adapt_channels:
        given = given | {first: adapted(given[first], wanted[first].shape[1])}
    elif first is not None and not allow_partial:
        taken = given[first].shape[1]
        raise CheckpointError(
            f"{weights.source}: {first} takes images of {counted(taken, 'channel')}, the trunk's "
            f"of {wanted[first].shape[1]}; a training fits it with adapt_channels=true"
        )
    fitting = {
        name: value
        for name, value in given.items()
        if name in wanted and wanted[name].shape == value.shape
    }
    problems = misfits(wanted, given)
    if problems:
        message = (
            f"{weights.source}: {len(fitting)} of the trunk's {len(wanted)} tensors fit "
            f"({'; '.join(problems)})"
        )
        if weights.trunk_node is not None:
            message += f"; the weights are those of {trunk_option(weights.trunk_node)}"
        if not (allow_partial and fitting):
            raise CheckpointError(message)
        logger.warning("%s", message)
    trunk.load_state_dict(fitting, strict=False)


def misfits(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """One line for each kind of misfit, with its first key: shape, missing, left over."""
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


def _contents(weights: Weights) -> str:
    kinds = {"a head": weights.head, "a classifier": weights.classifier, "others": weights.unused}
    return " and ".join(kind for kind, keys in kinds.items() if keys)
