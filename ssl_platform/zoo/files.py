"""Files that others wrote, read as data: nothing in them is ever executed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ssl_platform.errors import CheckpointError
from ssl_platform.zoo.raw import first_bytes, is_web_page

# in what torch says of a pickle that it refuses
NEEDS_CODE = re.compile(
    r"(?:unsupported global(?:: global)?|classes allowlisted .*but got) (\S+)", re.IGNORECASE
)


def read_content(path: Path) -> Mapping[str, Any]:
    """What a file of torch or safetensors holds, on the CPU.

    Raises:
        CheckpointError: it is missing, damaged, no checkpoint, or a pickle that needs more than
            tensors and plain values; the message begins with the path.
    """
    try:
        head = first_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise CheckpointError(f"{path}: an empty file; fetch it again")
    if is_web_page(path):
        raise CheckpointError(
            f"{path}: a web page, not a checkpoint; the download needs another address or a login"
        )
    content = _read_safetensors(path) if head[8:9] == b"{" else _read_torch(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; wanted are tensors by name, a state dict"
        )
    return content


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    code = NEEDS_CODE.search(message)
    if code:
        return (
            f"a pickle that needs to run code ({code[1]}), which is refused; where you trust the "
            "file, save its state dict alone: torch.save(model.state_dict(), ...)"
        )
    if "TorchScript" in message:
        return "a TorchScript program, which would run code; wanted is a state dict"
    return "not a checkpoint, or a truncated or damaged one; fetch it again"


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error}); fetch it again") from error
