"""Checkpoints on disk: written beside and renamed, verified before they are trusted.

``checkpoints/step_00000500/`` holds ``shared.pt``, what all ranks share, one ``rank_<r>.pt`` each
with what a rank owns, and ``manifest.json`` with the size and the SHA-256 of these files. They hold
tensors and plain values only, and are read with ``weights_only=True``: nothing in them is executed.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_platform.errors import CheckpointError
from ssl_platform.files import read_small, sha256_of, sync, unpacks_to_too_much

logger = logging.getLogger(__name__)

SHARED = "shared.pt"
MANIFEST = "manifest.json"
PARTIAL = ".partial_"  # heads the name of what is being written or removed
BROKEN = "broken_"


@dataclass(frozen=True)
class File:
    """What the manifest says of a file."""

    bytes: int
    sha256: str


def latest(output_dir: Path) -> Path | None:
    """The directory of a run's latest checkpoint that is whole; None when it has saved none.

    Those after it that are not are named in a warning, and so is what is no checkpoint of ours.

    Raises:
        CheckpointError: the run has checkpoints, and all of them are broken.
    """
    _tell_of_foreign(output_dir / "checkpoints")
    broken = []
    for folder in reversed(_all(output_dir / "checkpoints")):
        try:
            verify(folder)
        except CheckpointError as error:
            broken.append(str(error))
        else:
            for reason in broken:
                logger.warning("%s; going on from %s", reason, folder)
            return folder
    if broken:
        raise CheckpointError("; ".join([*broken, "no checkpoint before is whole"]))
    return None


def what_is_saved(output_dir: Path) -> str:
    """What a run that has failed can go on from, in words; it never raises."""
    try:
        saved = latest(output_dir)
    except CheckpointError as error:
        return str(error)
    return "no checkpoint was saved before" if saved is None else f"{saved} is from before"


def any_in(output_dir: Path) -> bool:
    """Whether a run has saved a checkpoint, be it whole or not."""
    return bool(_all(output_dir / "checkpoints"))


def num_epochs_begun(source: Path) -> int:
    """Epochs, the one under way too, of a run's latest checkpoint, or of ``source`` if it is one.

    By the manifest alone, which may be of a broken one: a look at all its bytes takes a while.
    """
    is_checkpoint = (source / MANIFEST).exists()
    for folder in [source] if is_checkpoint else _all(source / "checkpoints")[-1:]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((folder / MANIFEST).read_text())
            return int(about["epoch"]) + (about["epoch_step"] > 0)
    return 0


def verify(folder: Path) -> None:
    """Hold every file of a checkpoint against its manifest.

    Raises:
        CheckpointError: a file is missing, cut off or changed.
    """
    try:
        files = json.loads(read_small(folder / MANIFEST))["files"]
        expected = {name: File(**entry) for name, entry in files.items()}
        expected[SHARED]  # a manifest that tells of nothing proves nothing
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / MANIFEST} cannot be read ({_first_line(error)})"
        ) from error
    for name, file in expected.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise CheckpointError(f"{path} is missing")
        if size != file.bytes:
            raise CheckpointError(f"{path} has {size} bytes instead of {file.bytes}")
        if sha256_of(path) != file.sha256:
            raise CheckpointError(f"{path} has changed since it was written (its SHA-256 differs)")


def read(path: Path) -> dict[str, Any]:
    """One file of a checkpoint, on the CPU.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    bomb = unpacks_to_too_much(path) if path.is_file() else "is no file"  # a pipe would be awaited
    if bomb is not None:
        raise CheckpointError(f"{path} cannot be read ({bomb})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else a damaged file may be
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of a damaged file raises whatever it stumbles on
        raise CheckpointError(f"{path} cannot be read ({_first_line(error)})") from error


def read_shared(folder: Path) -> dict[str, Any]:
    """What all ranks share: ``model``, ``loss``, ``optimizer``, ``epoch``, ``step``, ..."""
    return read(folder / SHARED)


def partial_folder(output_dir: Path, step: int) -> Path:
    """Where the files of a checkpoint are written before it is committed."""
    return output_dir / "checkpoints" / f"{PARTIAL}step_{step:08d}"


def write(path: Path, state: dict[str, Any]) -> File:
    """Write one file of a checkpoint and wait until the disk has it.

    Raises:
        OSError, RuntimeError: it cannot be written.
    """
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    return File(path.stat().st_size, sha256_of(path))


def commit(folder: Path, files: dict[str, File], about: dict[str, Any]) -> Path:
    """Give a `partial_folder` with all files its manifest and its name, and return that.

    Raises:
        OSError: the disk is full.
    """
    manifest = about | {"files": {name: asdict(file) for name, file in files.items()}}
    with (folder / MANIFEST).open("w") as file:
        file.write(json.dumps(manifest, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync(folder)
    target = folder.with_name(folder.name.removeprefix(PARTIAL))
    remove(target)
    folder.rename(target)
    sync(target.parent)
    return target


def prune(output_dir: Path, *, keep: int, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Remove all checkpoints but the latest ``keep`` and those whose manifest ``is_kept``."""
    for folder in _all(output_dir / "checkpoints")[:-keep]:
        try:
            about = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError):
            about = {}
        if not is_kept(about):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint, such that a kill in between leaves none that looks broken."""
    hidden = folder.with_name(f"{PARTIAL}removed_{folder.name}")
    with suppress(OSError):
        folder.rename(hidden)
        shutil.rmtree(hidden)


def set_aside_later(folder: Path) -> None:
    """Rename the checkpoints after ``folder``, which are broken, so that they count no more."""
    later = _all(folder.parent)
    for broken in later[later.index(folder) + 1 :]:
        hidden = broken.with_name(f"{BROKEN}{broken.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        broken.rename(hidden)


def remove_partial(output_dir: Path) -> None:
    """Remove what a kill has left half-written."""
    for folder in (output_dir / "checkpoints").glob(f"{PARTIAL}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    """Checkpoints by age, oldest first."""
    named = [p for p in folder.glob("step_*") if p.name.removeprefix("step_").isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step_")))


def _tell_of_foreign(folder: Path) -> None:
    """Say of what else lies among the checkpoints that nobody reads it."""
    ours = set(_all(folder))
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path not in ours and not path.name.startswith((".", BROKEN)):
            lacks = "" if (path / MANIFEST).is_file() else f" and has no {MANIFEST}"
            logger.warning(
                "%s is not used as a checkpoint: it is not named step_<number>%s", path, lacks
            )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
