"""Read checkpoint files of any origin as data: nothing in them is executed.

The sizes in their headers are checked first, so that a small file cannot fill the memory.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import safetensors.torch
import torch

from ssl_platform.errors import CheckpointError
from ssl_platform.files import unpacks_to_too_much
from ssl_platform.zoo.file_kinds import UNPACK, first_bytes, is_tar, is_web_page, other_kind

# torch's messages about a pickle that it refuses
NEEDS_CODE = re.compile(
    r"(?:unsupported global(?:: global)?|classes allowlisted .*but got) (\S+)", re.IGNORECASE
)
ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
PROTOCOL = 2  # the pickle protocol that torch writes, and the only one its safe reader knows


class DamagedFileError(CheckpointError):
    """A file that is cut off or damaged; another copy of it may be whole."""


def read_content(path: Path, *, mmap: bool = False) -> Mapping[str, Any]:
    """The mapping in a file of torch or safetensors, with its tensors on the CPU.

    Args:
        path: the file.
        mmap: read values from the disk when they are used; torch's older format is read whole.

    Raises:
        CheckpointError: it is missing, no checkpoint, or a pickle that needs more than tensors and
            plain values; the message begins with the path.
        DamagedFileError: it is empty, cut off or damaged.
    """
    content = _read(path, mmap)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; wanted are tensors by name, a state dict"
        )
    return content


def _read(path: Path, mmap: bool) -> Any:
    if path.exists() and not path.is_file():  # reading a pipe would wait, a device never ends
        raise CheckpointError(f"{path}: not a file")
    try:
        head = first_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise DamagedFileError(f"{path}: an empty file; fetch it again")
    if is_web_page(path):
        raise CheckpointError(
            f"{path}: a web page, not a checkpoint; the download needs another address or a login"
        )
    kind = other_kind(head)
    if kind is not None:
        raise CheckpointError(f"{path}: {kind}")
    if head[8:9] == b"{" and not head.startswith(ZIP):
        return _read_safetensors(path)
    if head.startswith(ZIP):
        _require_torch_zip(path)
    return _read_torch(path, head, mmap and head.startswith(ZIP))


def _read_torch(path: Path, head: bytes, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses what else the file may be
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle can raise anything
        raise _refusal(path, head, str(error)) from error


def _refusal(path: Path, head: bytes, message: str) -> CheckpointError:
    code = NEEDS_CODE.search(message)
    if code:
        return CheckpointError(
            f"{path}: a pickle that needs to run code ({code[1]}), which is refused; where you "
            "trust the file, save its state dict alone: torch.save(model.state_dict(), ...)"
        )
    protocol = _protocol(path, head)
    if protocol > PROTOCOL:
        return CheckpointError(
            f"{path}: a pickle of protocol {protocol}, which torch's safe reader does not know; "
            "where you trust the file, load it yourself and save its state dict by torch.save"
        )
    if is_tar(head):
        return CheckpointError(f"{path}: a tar archive; {UNPACK}")
    if head[:64].isascii() and head[:64].decode().isprintable():
        start = head[:40].decode(errors="replace").strip()
        return CheckpointError(f"{path}: text, not a checkpoint; it begins with {start!r}")
    return DamagedFileError(
        f"{path}: not a checkpoint, or a truncated or damaged one; fetch it again"
    )


def _protocol(path: Path, head: bytes) -> int:
    """The protocol of the pickle in a file; 0 if there is none."""
    if head.startswith(ZIP):
        try:
            with ZipFile(path) as archive, archive.open(_pickles(archive.infolist())[0]) as file:
                head = file.read(2)
        except Exception:  # a damaged or encrypted member can raise anything
            return 0
    return head[1] if head.startswith(PICKLE) and len(head) > 1 else 0


def _pickles(members: list[ZipInfo]) -> list[ZipInfo]:
    return [m for m in members if m.filename.rpartition("/")[2] == "data.pkl"]


def _require_torch_zip(path: Path) -> None:
    """Raise unless a zip archive is one of torch's, and no zip bomb."""
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DamagedFileError(f"{path}: truncated or damaged ({error}); fetch it again") from error
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript program, which would run code; wanted is a state dict"
        )
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError(f"{path}: arrays of NumPy; wanted is a state dict of torch")
    if not _pickles(members):
        inside = ", ".join(names[:3]) or "nothing"
        raise CheckpointError(f"{path}: a zip archive of {inside}; {UNPACK}")
    bomb = unpacks_to_too_much(path)
    if bomb is not None:
        raise CheckpointError(f"{path}: {bomb}")


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path}: truncated or damaged ({error}); fetch it again") from error
