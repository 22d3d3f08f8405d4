"""What of a run is saved, and how it is put back: into as many ranks as before, or others.

Beside what the parts say themselves (``state_dict``), that is the position, the random state and
the buffers that each rank owns. The order of the images and their augmentation are functions of
the seed, the epoch and the image, so that the position stands for them.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.config.options import ResumeOptions
from ssl_platform.engine import checkpoint
from ssl_platform.engine.position import (
    change_of_length,
    position_state,
    take_position,
    tell_of_another_schedule,
)
from ssl_platform.engine.run import Run
from ssl_platform.errors import CheckpointError, first_few

logger = logging.getLogger(__name__)

PLAIN = (type(None), bool, int, float, str)


def shared_state(run: Run) -> dict[str, Any]:
    """What is equal on all ranks."""
    return {
        "model": dict(run.model.state_dict()),
        "loss": dict(run.loss.state_dict()),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        **position_state(run),
        "report": {name: float(value) for name, value in run.report.items()},
        "data": run.data_fingerprint,
        "classes": _class_names(run),
        "data_sample": run.data_sample,
        "world_size": distributed.world_size(),
        "environment": environment(run),
    }


def rank_state(run: Run) -> dict[str, Any]:
    """What belongs to this rank."""
    state = {
        "rng": torch.get_rng_state(),
        "buffers": rank_buffers(run.loss),
        "hooks": {name: hook.state_dict() for name, hook in run.hooks.items()},
    }
    _refuse_what_is_not_plain(state["hooks"], "hooks")
    if run.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state()
    return state


def _refuse_what_is_not_plain(state: Any, where: str) -> None:
    """Find at the first save what could not be read when it is needed."""
    if isinstance(state, dict):
        for key, value in state.items():
            _refuse_what_is_not_plain(value, f"{where}.{key}")
    elif type(state) in (list, tuple):
        for number, value in enumerate(state):
            _refuse_what_is_not_plain(value, f"{where}.{number}")
    elif not isinstance(state, Tensor) and type(state) not in PLAIN:
        raise TypeError(
            f"{where} is a {type(state).__name__}: a checkpoint holds tensors and plain values only"
        )


def environment(run: Run) -> dict[str, str | int]:
    """What, beside the config and the number of processes, the bits of a result depend on."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu",
        "crops": getattr(run.train_loader.transform, "implementation", "of one kind"),
    }


def rank_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that ``state_dict()`` leaves out: each rank owns its values."""
    shared = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in shared}


def resume(run: Run, options: ResumeOptions) -> None:
    """Put ``run`` where its latest checkpoint left it, or another run's; collective.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit this run.
    """
    folder = _agree_on_checkpoint(run, options)
    if folder is None:
        return
    shared = checkpoint.read_shared(folder)
    _refuse_what_does_not_fit(run, options, folder, shared)
    _load(folder, "model", run.model.load_state_dict, shared["model"])
    _refuse_other_sizes(folder, shared["loss"], run.loss.state_dict())
    _load(folder, "loss", run.loss.load_state_dict, shared["loss"])
    _load_optimizer(run, folder, shared["optimizer"])
    _load(folder, "scaler", run.scaler.load_state_dict, shared["scaler"])
    take_position(run, shared)
    run.report = dict(shared["report"])
    _restore_rank(run, folder, shared["world_size"])
    if distributed.rank() == 0:
        logger.info("going on from %s", folder)
        if run.position < run.num_epochs * run.train_sampler.steps_per_epoch:
            tell_of_another_schedule(run, shared)


def _agree_on_checkpoint(run: Run, options: ResumeOptions) -> Path | None:
    """The checkpoint that the first rank found whole: hashing it once is enough."""
    found = None
    if distributed.rank() == 0:
        checkpoint.remove_partial(run.output_dir)
        found = checkpoint.latest(run.output_dir)
        if found is None:
            found = _of_other_run(options.source)
        else:
            checkpoint.set_aside_later(found)
    name = distributed.broadcast_text("" if found is None else str(found))
    return Path(name) if name else None


def _of_other_run(source: Path | None) -> Path | None:
    if source is None:
        return None
    if (source / checkpoint.MANIFEST).exists():
        checkpoint.verify(source)
        return source
    folder = checkpoint.latest(source)
    if folder is None:
        raise CheckpointError(f"resume.mode={source}: this run has saved no checkpoint yet")
    return folder


def _refuse_what_does_not_fit(
    run: Run, options: ResumeOptions, folder: Path, shared: dict[str, Any]
) -> None:
    before, now = shared["world_size"], distributed.world_size()
    if before != now and not options.allows("launch.processes"):
        raise CheckpointError(
            f"{folder} was written by {before} processes, this run has {now}: start it with "
            f"launch.processes={before}, or allow it with resume.allow_changes=[launch.processes]"
        )
    may_differ = any(map(options.allows, ("data.train", "train_fraction")))
    if shared["data"] != run.data_fingerprint and not may_differ:
        raise CheckpointError(
            f"{folder} was written with other training images (some were added, removed or renamed "
            "since): bring those back, start a new run with name=..., or allow it with "
            "resume.allow_changes=[data.train]"
        )
    changes = _changed_files(run, options, folder, shared)
    changes += [
        f"{key} {shared['environment'].get(key)} before, {value} now"
        for key, value in environment(run).items()
        if shared["environment"].get(key, value) != value  # else it is older than the key
    ]
    if before != now:
        changes.append(
            f"{before} processes before, {now} now (random states, batch-norm groups, figures of "
            "the epoch under way)"
        )
    if options.exact and (change := change_of_length(run, shared)):  # else it is told later
        changes.append(change)
    if distributed.rank() == 0:
        _tell_of_other_classes(run, shared.get("classes"))
    if changes:
        told = f"{folder}: the result is no longer bit for bit an unbroken run's: "
        told += "; ".join(changes)
        if options.exact:
            raise CheckpointError(f"{told} (resume.exact=false goes on)")
        logger.warning(told)


def _class_names(run: Run) -> list[str] | None:
    classes = run.train_data.classes
    return None if classes is None else list(map(str, classes))


def _tell_of_other_classes(run: Run, before: list[str] | None) -> None:
    """Say where a number means another class now: a head that learned labels goes by the number."""
    pairs = enumerate(zip(before or (), _class_names(run) or (), strict=False))
    others = [(number, was, now) for number, (was, now) in pairs if was != now]
    if others:
        logger.warning(
            "data.train: %d classes have another number now, e.g. %d was %s and is %s: a head that "
            "was trained on labels takes the one for the other",
            len(others),
            *others[0],
        )


def _changed_files(
    run: Run, options: ResumeOptions, folder: Path, shared: dict[str, Any]
) -> list[str]:
    """What became of a sample of the training images' files, where it is no reason to refuse."""
    sample = shared.get("data_sample", {})  # a checkpoint may be older than it
    if shared["data"] != run.data_fingerprint:
        return []  # positions are those of other images
    changes = run.train_data.changes_since(sample)
    if changes.is_copy:
        logger.info("%s: the images have other times than then: taken for a copy", folder)
    of_sample = f"of the {len(sample)} training images looked at"
    if changes.resized and not options.allows("data.train"):
        raise CheckpointError(
            f"{folder} was written with other training images: {len(changes.resized)} {of_sample} "
            f"have other sizes ({first_few(changes.resized)}): bring those back, start a new "
            "run with name=..., or allow it with resume.allow_changes=[data.train]"
        )
    files = changes.resized + changes.touched
    told = f"{len(files)} {of_sample} have been written anew since ({first_few(files)})"
    return [told] if files else []


def _load(folder: Path, part: str, load: Callable[[Any], Any], state: Any) -> None:
    try:
        load(state)
    except (RuntimeError, ValueError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(f"{folder}: its {part} is another: {' '.join(lines)}") from error


def _refuse_other_sizes(folder: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """What a loss keeps of images or batches fits as many of them alone."""
    others = [
        f"{name} {_by(value)} before, {_by(own[name])} now"
        for name, value in saved.items()
        if isinstance(value, Tensor) and name in own and value.shape != own[name].shape
    ]
    if others:
        raise CheckpointError(
            f"{folder}: what its loss has kept does not fit: {'; '.join(others)}; bring back the "
            "number of images, data.batch_size and the loss's options of before, or start a new "
            "run from its weights with checkpoint=..."
        )


def _by(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _load_optimizer(run: Run, folder: Path, state: dict[str, Any]) -> None:
    """Load what the optimizer has gathered; its options stay those of the config."""
    options = [
        {key: value for key, value in group.items() if key != "params"}
        for group in run.optimizer.param_groups
    ]
    _load(folder, "optimizer", run.optimizer.load_state_dict, state)
    for group, values in zip(run.optimizer.param_groups, options, strict=True):
        group.update(values)


def _restore_rank(run: Run, folder: Path, world_size: int) -> None:
    """Give this rank what it owned, or its part of what other ranks owned."""
    rank = distributed.rank()
    paths = [folder / f"rank_{r}.pt" for r in range(world_size)]
    is_same_world = world_size == distributed.world_size()
    if is_same_world:
        mine = checkpoint.read(paths[rank])
        buffers = mine["buffers"]
    else:
        parts = [checkpoint.read(path) for path in paths]
        mine = parts[0] | {"rng": parts[rank % world_size]["rng"]}  # a new rank needs some
        buffers = _resharded(run, folder, [part["buffers"] for part in parts])
    own = rank_buffers(run.loss)
    if own.keys() != buffers.keys():
        raise CheckpointError(f"{folder}: its loss has other buffers: {', '.join(buffers)}")
    buffers = {name: run.loss.fitted(name, value) for name, value in buffers.items()}
    _refuse_other_sizes(folder, buffers, own)
    for name, value in buffers.items():
        own[name].copy_(value)
    for name, hook in run.hooks.items():
        if mine["hooks"].get(name):
            hook.load_state_dict(_on(run.device, mine["hooks"][name]))
    torch.set_rng_state(mine["rng"])
    if run.device.type == "cuda" and "cuda_rng" in mine:
        torch.cuda.set_rng_state(mine["cuda_rng"])


def _resharded(run: Run, folder: Path, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    batch_size = run.train_loader.batch_size
    try:
        return {
            name: run.loss.reshard(name, [part[name] for part in parts], batch_size=batch_size)
            for name in parts[0]
        }
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: cannot go on with another number of processes: {error}"
        ) from error


def _on(device: torch.device, state: Any) -> Any:
    """The same state, its tensors on ``device``."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, Mapping):
        return {key: _on(device, value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on(device, value) for value in state)
    return state
