"""Checkpoints on disk: written under another name and renamed, verified before they are used.

``checkpoints/step_00000500/`` holds ``shared.pt`` with the state that is equal on all ranks, a
``rank_<r>.pt`` for each rank with the state of its own, and ``manifest.json`` with the size and the
SHA-256 of these files. The files hold tensors and plain values only and are read with
``weights_only=True``, so that nothing in them is executed.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_platform.errors import CheckpointError, first_line
from ssl_platform.files import read_small, sha256_of, sync, unpacks_to_too_much

logger = logging.getLogger(__name__)

SHARED = "shared.pt"
MANIFEST = "manifest.json"
PARTIAL = ".partial_"  # begins the name of a checkpoint that is being written or removed
BROKEN = "broken_"


@dataclass(frozen=True)
class File:
    """Size and digest of a file, as in the manifest."""

    bytes: int
    sha256: str


def latest(output_dir: Path) -> Path | None:
    """The directory of a run's latest whole checkpoint; None if the run has saved none.

    Warnings name the broken checkpoints after it, and files that are not used as a checkpoint.

    Raises:
        CheckpointError: the run has checkpoints, and all of them are broken.
    """
    _warn_of_other_files(output_dir / "checkpoints")
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
    """For a message: from where a run that has failed can go on. It never raises."""
    try:
        saved = latest(output_dir)
    except CheckpointError as error:
        return str(error)
    return "no checkpoint was saved before" if saved is None else f"{saved} is from before"


def any_in(output_dir: Path) -> bool:
    """Whether a run has saved a checkpoint, whole or broken."""
    return bool(_all(output_dir / "checkpoints"))


def num_epochs_begun(source: Path) -> int:
    """The epochs that a run has begun; 0 if its latest checkpoint does not say.

    Only the manifest is read: to verify all bytes would take a while.

    Args:
        source: the directory of the run or of a checkpoint.
    """
    is_checkpoint = (source / MANIFEST).exists()
    for folder in [source] if is_checkpoint else _all(source / "checkpoints")[-1:]:
        with suppress(KeyError, TypeError, ValueError):
            about = _manifest(folder)
            return int(about["epoch"]) + (about["epoch_step"] > 0)
    return 0


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; an empty one if it cannot be read."""
    with suppress(OSError, ValueError):
        manifest = json.loads(read_small(folder / MANIFEST))
        return manifest if isinstance(manifest, dict) else {}
    return {}


def verify(folder: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: a file is missing, cut off or changed.
    """
    try:
        files = json.loads(read_small(folder / MANIFEST))["files"]
        expected = {name: File(**entry) for name, entry in files.items()}
        expected[SHARED]  # a manifest without files would prove nothing
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{folder / MANIFEST} cannot be read ({reason})") from error
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
    # a pipe is not opened, as that would block
    problem = unpacks_to_too_much(path) if path.is_file() else "is no file"
    if problem is not None:
        raise CheckpointError(f"{path} cannot be read ({problem})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that a damaged file looks like
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many types for a damaged file
        raise CheckpointError(f"{path} cannot be read ({first_line(error)})") from error


def read_shared(folder: Path) -> dict[str, Any]:
    """State that all ranks share: ``model``, ``loss``, ``optimizer``, ``epoch``, ``step``, ..."""
    return read(folder / SHARED)


def partial_folder(output_dir: Path, step: int) -> Path:
    """Where the files of a checkpoint are written before it is committed."""
    return output_dir / "checkpoints" / f"{PARTIAL}step_{step:08d}"


def write(path: Path, state: dict[str, Any]) -> File:
    """Write one file of a checkpoint, and wait until it is on the disk.

    Raises:
        OSError, RuntimeError: it cannot be written.
    """
    with path.open("wb") as file:
        torch.save(state, file)
    sync(path)
    return File(path.stat().st_size, sha256_of(path))


def commit(folder: Path, files: dict[str, File], about: dict[str, Any]) -> Path:
    """Write the manifest of a `partial_folder` with all files, and rename it; returns the new path.

    Raises:
        OSError: the disk is full.
    """
    manifest = about | {"files": {name: asdict(file) for name, file in files.items()}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    sync(folder / MANIFEST)
    sync(folder)
    target = folder.with_name(folder.name.removeprefix(PARTIAL))
    remove(target)
    folder.rename(target)
    sync(target.parent)
    return target


def prune(output_dir: Path, *, keep: int, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Remove all checkpoints except the latest ``keep`` and those whose manifest ``is_kept``."""
    for folder in _all(output_dir / "checkpoints")[:-keep]:
        if not is_kept(_manifest(folder)):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint; a kill in between does not leave a broken one."""
    hidden = folder.with_name(f"{PARTIAL}removed_{folder.name}")
    with suppress(OSError):
        folder.rename(hidden)
        shutil.rmtree(hidden)


def set_aside_later(folder: Path) -> None:
    """Rename the checkpoints after ``folder``, which are broken, so that they are not used."""
    later = _all(folder.parent)
    for broken in later[later.index(folder) + 1 :]:
        hidden = broken.with_name(f"{BROKEN}{broken.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        broken.rename(hidden)


def remove_partial(output_dir: Path) -> None:
    """Remove the half-written checkpoints that a kill has left."""
    for folder in (output_dir / "checkpoints").glob(f"{PARTIAL}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first."""
    named = [p for p in folder.glob("step_*") if p.name.removeprefix("step_").isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step_")))


def _warn_of_other_files(folder: Path) -> None:
    """Name the files among the checkpoints that are not used as one."""
    ours = set(_all(folder))
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path not in ours and not path.name.startswith((".", BROKEN)):
            lacks = "" if (path / MANIFEST).is_file() else f" and has no {MANIFEST}"
            logger.warning(
                "%s is not used as a checkpoint: it is not named step_<number>%s", path, lacks
            )
