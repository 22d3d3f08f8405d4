"""Save and restore a run.

``checkpoints/epoch_0007/`` holds ``shared.pt``, what all ranks share, and one ``rank_<r>.pt`` each:
the rank's random state and the loss's non-persistent buffers (queues, memory banks). The directory
is written under another name and renamed when it is complete. Files hold tensors and plain values
only, and are read with ``weights_only=True``: nothing in them is executed.
"""

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.errors import CheckpointError

if TYPE_CHECKING:
    from ssl_platform.engine import Run


SHARED = "shared.pt"


@dataclass(frozen=True)
class CheckpointOptions:
    every_epochs: int
    keep: int  # latest checkpoints that stay


def is_due(run: "Run") -> bool:
    return run.epoch % run.checkpoint.every_epochs == 0 or run.epoch == run.num_epochs


def save(run: "Run") -> None:
    """Write the checkpoint of the epoch that just ended; collective."""
    folder = run.output_dir / "checkpoints"
    target, partial = folder / f"epoch_{run.epoch:04d}", folder / f".partial_{run.epoch:04d}"
    if distributed.rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        torch.save(_shared_state(run), partial / SHARED)
    distributed.barrier()
    torch.save(_rank_state(run), partial / f"rank_{distributed.rank()}.pt")
    distributed.barrier()
    if distributed.rank() == 0:
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for old in _complete(folder)[: -run.checkpoint.keep]:
            shutil.rmtree(old)


def resume(run: "Run") -> None:
    """Put ``run`` where its latest checkpoint left it; do nothing when there is none.

    Raises:
        CheckpointError: the checkpoint cannot be read, or was written by another number of ranks or
            with other training images.
    """
    folder = latest(run.output_dir)
    if folder is None:
        return
    shared = read(folder / SHARED)
    if shared["world_size"] != distributed.world_size():
        raise CheckpointError(
            f"{folder} was written by {shared['world_size']} processes, this run has "
            f"{distributed.world_size()}: start it with launch.processes={shared['world_size']}, "
            "or as a new run with name=..."
        )
    if shared["data"] != run.train_data.fingerprint():
        raise CheckpointError(
            f"{folder} was written with other training images (some were added, removed or renamed "
            "since): bring those back, or start a new run with name=..."
        )
    run.model.load_state_dict(shared["model"])
    run.loss.load_state_dict(shared["loss"])
    run.optimizer.load_state_dict(shared["optimizer"])
    run.scaler.load_state_dict(shared["scaler"])
    run.epoch, run.step = shared["epoch"], shared["step"]
    local = read(folder / f"rank_{distributed.rank()}.pt")
    for name, value in local["buffers"].items():
        run.loss.get_buffer(name).copy_(value)
    torch.set_rng_state(local["rng"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(local["cuda_rng"])


def latest(output_dir: Path) -> Path | None:
    """The directory of the latest complete checkpoint of a run, if it has one."""
    return next(reversed(_complete(output_dir / "checkpoints")), None)


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob("epoch_*"), key=lambda path: int(path.name.removeprefix("epoch_")))


def _shared_state(run: "Run") -> dict[str, Any]:
    return {
        "model": run.model.state_dict(),
        "loss": run.loss.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "epoch": run.epoch,
        "step": run.step,
        "world_size": distributed.world_size(),
        "data": run.train_data.fingerprint(),
    }


def _rank_state(run: "Run") -> dict[str, Any]:
    state = {"rng": torch.get_rng_state(), "buffers": rank_buffers(run.loss)}
    if run.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state()
    return state


def rank_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that ``state_dict()`` leaves out: each rank owns its values."""
    shared = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in shared}


def read(path: Path) -> dict[str, Any]:
    """One file of a checkpoint, on the CPU.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason}): remove {path.parent} to go on from the one before"
        ) from error
