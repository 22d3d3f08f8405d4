"""Write weights in the formats of other libraries."""

import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ssl_platform.errors import CheckpointError, ConfigError, DiskError, nearest
from ssl_platform.files import error_of_disk, replacing, sha256_of, sync
from ssl_platform.registry import WRITERS
from ssl_platform.zoo.model_card import model_card
from ssl_platform.zoo.weights import Weights, build_trunk, load_trunk

logger = logging.getLogger(__name__)

IMAGE_SIDE = 224  # of the example that programs are traced with; ResNets take any other too
ONNX_LIMIT = 2**31  # bytes of one protobuf message


def export(weights: Weights, format: str, output: Path) -> list[Path]:
    """Write the trunk, and the classifier if the format has a name for it.

    Args:
        weights: from `read_weights`.
        format: the name of a writer.
        output: the file; an older one is replaced.

    Returns:
        The files written: ``output``, and for safetensors a model card beside it.

    Raises:
        CheckpointError: the weights cannot be written in this format.
        ConfigError: there is no such writer, the file cannot be written, or a library is missing.
        DiskError: the disk is full.
    """
    if format not in WRITERS.names():
        hint = nearest(format, WRITERS.names())
        raise ConfigError([f"--format {format}: no such writer; {hint} (of a plug-in: --plugin)"])
    if not weights.trunk:
        raise CheckpointError(f"{weights.source}: holds no trunk to export")
    with _replacing(output) as partial:
        WRITERS.get(format)(weights, partial)
    if format != "safetensors":
        return [output]
    card = output.with_suffix(".md")
    with _replacing(card) as partial:
        partial.write_text(model_card(weights, output.name, sha256_of(output)))
    return [output, card]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which becomes ``path`` when it is complete."""
    if not path.name or (path.exists() and not path.is_file()):  # a device stays as it is
        raise ConfigError([f"-o {path}: not a file; give one to be written, e.g. trunk.pth"])
    if not path.parent.is_dir():
        raise ConfigError([f"-o {path}: there is no folder {path.parent}"])
    try:
        with replacing(path) as partial:
            yield partial
            sync(partial)
    except (OSError, RuntimeError) as error:
        full = error_of_disk(error)
        if full is not None:
            raise DiskError(f"-o {path}: cannot be written ({full.strerror})") from error
        raise ConfigError([f"-o {path}: cannot be written ({error})"]) from error


def _torchvision_state(weights: Weights) -> dict[str, Tensor]:
    """The trunk by torchvision's names, with ``fc`` if a classifier takes its features."""
    last = [name for name in weights.trunk if re.fullmatch(r"layer4\.\d+\.bn\d\.weight", name)]
    if not last:
        raise CheckpointError(f"{weights.source}: no ResNet; torchvision's names are those of one")
    width = weights.trunk[last[-1]].shape[0]
    if not weights.classifier:
        return weights.trunk
    if weights.classifier["weight"].shape[1] != width:
        logger.warning("%s: its classifier is of another layer and left out", weights.source)
        return weights.trunk
    return weights.trunk | {f"fc.{name}": value for name, value in weights.classifier.items()}


def _timm_state(weights: Weights) -> dict[str, Tensor]:
    """As `_torchvision_state` for a ResNet; of other trunks of timm, the trunk alone."""
    if all(name.startswith("model.") for name in weights.trunk):
        return {name.removeprefix("model."): value for name, value in weights.trunk.items()}
    return _torchvision_state(weights)


def trunk_of(weights: Weights) -> nn.Module:
    """The trunk with its weights, in eval mode.

    Raises:
        CheckpointError: the weights do not show its architecture, or some are missing.
    """
    if weights.trunk_node is None:
        raise CheckpointError(
            f"{weights.source}: the weights do not tell the whole architecture; export a run"
        )
    trunk = build_trunk(weights)
    load_trunk(trunk, weights, allow_partial=False)
    return trunk.eval()


def _save(state: dict[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:  # torch's own error does not say why a file cannot be written
        torch.save(state, file)


@WRITERS.register()
def torchvision(weights: Weights, path: Path) -> None:
    """The trunk, and ``fc``, by torchvision's names."""
    _save(_torchvision_state(weights), path)


@WRITERS.register()
def timm(weights: Weights, path: Path) -> None:
    """The trunk, and ``fc`` of a ResNet, by timm's names."""
    _save(_timm_state(weights), path)


@WRITERS.register()
def safetensors(weights: Weights, path: Path) -> None:
    """As `timm`, in a file that executes nothing."""
    state = {name: value.contiguous() for name, value in _timm_state(weights).items()}
    # save_file would make a file that only its owner can read
    path.write_bytes(save(state, {"format": "pt"}))


@WRITERS.register()
def onnx(weights: Weights, path: Path) -> None:
    """The trunk as a program for ONNX Runtime."""
    if importlib.util.find_spec("onnxscript") is None:
        raise ConfigError(["--format onnx: needs pip install onnx onnxscript"])
    size = sum(value.nbytes for value in weights.trunk.values())
    if size > ONNX_LIMIT:
        raise CheckpointError(
            f"{weights.source}: {size} bytes of weights, an ONNX file holds at most {ONNX_LIMIT}; "
            "use --format safetensors"
        )
    torch.onnx.export(
        trunk_of(weights), (_example(),), str(path), input_names=["images"],
        output_names=["features"], dynamic_shapes=_any_size(), external_data=False, verbose=False,
    )  # fmt: skip


@WRITERS.register()
def torch_export(weights: Weights, path: Path) -> None:
    """The trunk as a program for ``torch.export.load``."""
    program = torch.export.export(trunk_of(weights), (_example(),), dynamic_shapes=_any_size())
    torch.export.save(program, path)


def _example() -> Tensor:
    return torch.zeros(
        2, 3, IMAGE_SIDE, IMAGE_SIDE
    )  # of two images: a batch of one would become a constant


def _any_size() -> Any:
    """Any number of images; any height and width where the trunk allows it."""
    auto = torch.export.Dim.AUTO
    return ({0: auto, 2: auto, 3: auto},)
