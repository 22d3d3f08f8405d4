"""The state of a run: what is saved, and how it is restored, also for another number of ranks.

Saved are the ``state_dict`` of each part, the position, the random state and the buffers that each
rank owns. The order of the images and their augmentation are functions of the seed, the epoch and
the image, so that the position is enough to restore them.
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
    restore_position,
    say_how_scheduled_options_change,
    say_how_the_schedule_changes,
)
from ssl_platform.engine.run import Run
from ssl_platform.errors import CheckpointError, first_few
from ssl_platform.ops.nested import leaves, map_leaves, name_of

logger = logging.getLogger(__name__)

PLAIN = (type(None), bool, int, float, str)
# of what an environment holds, what is younger than some checkpoints, with what was so then
BEFORE = {"draws of crops": "by their place in a list"}


def shared_state(run: Run) -> dict[str, Any]:
    """The part of the state that is equal on all ranks."""
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
    """The part of the state that this rank owns.

    Raises:
        TypeError: a hook's state could not be read again: the first save finds it.
    """
    state = {
        "rng": torch.get_rng_state(),
        "buffers": rank_buffers(run.loss),
        "hooks": {name: hook.state_dict() for name, hook in run.hooks.items()},
    }
    for path, value in leaves(state["hooks"], ("hooks",)):
        if not isinstance(value, Tensor) and type(value) not in PLAIN:
            raise TypeError(
                f"{name_of(path)} is a {type(value).__name__}: a checkpoint holds tensors and "
                "plain values only"
            )
    if run.device.type == "cuda":
        state["cuda_rng"] = torch.cuda.get_rng_state()
    return state


def environment(run: Run) -> dict[str, str | int]:
    """What the bits of a result depend on, beside the config and the number of processes."""
    transform = run.train_loader.transform
    draws = getattr(transform, "draws", None)
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu",
        "crops": getattr(transform, "implementation", "of one kind"),
        **({"draws of crops": draws} if isinstance(draws, str) else {}),
    }


def rank_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that ``state_dict()`` leaves out: each rank owns its own."""
    shared = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in shared}


def resume(run: Run, options: ResumeOptions) -> None:
    """Restore the latest checkpoint of ``run``, or of the run that it starts from; collective.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit this run.
    """
    folder = _agree_on_checkpoint(run, options)
    if folder is None:
        return
    shared = checkpoint.read_shared(folder)
    _check_fits(run, options, folder, shared)
    model = shared["model"]
    if options.allows("teacher"):
        model = run.model.fitted(model)
    _load(folder, "model", run.model.load_state_dict, model)
    _check_sizes(folder, shared["loss"], run.loss.state_dict())
    _load(folder, "loss", run.loss.load_state_dict, shared["loss"])
    _load_optimizer(run, folder, shared["optimizer"])
    _load(folder, "scaler", run.scaler.load_state_dict, shared["scaler"])
    restore_position(run, shared)
    run.report = dict(shared["report"])
    _restore_rank(run, folder, shared["world_size"])
    if distributed.rank() == 0:
        logger.info("going on from %s", folder)
        if run.position < run.num_epochs * run.train_sampler.steps_per_epoch:
            say_how_the_schedule_changes(run, shared)
            say_how_scheduled_options_change(run, shared)


def _agree_on_checkpoint(run: Run, options: ResumeOptions) -> Path | None:
    """The checkpoint to go on from, verified by the first rank alone: hashing takes a while."""
    folder = None
    if distributed.rank() == 0:
        checkpoint.remove_partial(run.output_dir)
        folder = checkpoint.latest(run.output_dir)
        if folder is not None:
            checkpoint.set_aside_later(folder)
        elif options.source is not None:
            folder = _of_other_run(options.source)
    name = distributed.broadcast_text("" if folder is None else str(folder))
    return Path(name) if name else None


def _of_other_run(source: Path) -> Path:
    if (source / checkpoint.MANIFEST).exists():
        checkpoint.verify(source)
        return source
    folder = checkpoint.latest(source)
    if folder is None:
        raise CheckpointError(f"resume.mode={source}: this run has saved no checkpoint yet")
    return folder


def _check_fits(run: Run, options: ResumeOptions, folder: Path, shared: dict[str, Any]) -> None:
    """Refuse a checkpoint of other processes or images; say what else changes the result's bits."""
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
        f"{key} {then} before, {value} now"
        for key, value in environment(run).items()
        # an old checkpoint may lack the key
        if (then := shared["environment"].get(key, BEFORE.get(key, value))) != value
    ]
    if before != now:
        changes.append(
            f"{before} processes before, {now} now (random states, batch-norm groups, figures of "
            "the epoch under way)"
        )
    if options.exact and (change := change_of_length(run, shared)):  # else the schedule says it
        changes.append(change)
    if distributed.rank() == 0:
        _warn_of_renumbered_classes(run, shared.get("classes"))
    if changes:
        message = f"{folder}: the result is no longer bit for bit an unbroken run's: "
        message += "; ".join(changes)
        if options.exact:
            raise CheckpointError(f"{message} (resume.exact=false goes on)")
        logger.warning(message)


def _class_names(run: Run) -> list[str] | None:
    classes = run.train_data.classes
    return None if classes is None else list(map(str, classes))


def _warn_of_renumbered_classes(run: Run, before: list[str] | None) -> None:
    """A head that was trained on labels knows classes by their numbers."""
    pairs = enumerate(zip(before or (), _class_names(run) or (), strict=False))
    changed = [(number, old, new) for number, (old, new) in pairs if old != new]
    if changed:
        logger.warning(
            "data.train: %d classes have another number now, e.g. %d was %s and is %s: a head that "
            "was trained on labels takes the one for the other",
            len(changed),
            *changed[0],
        )


def _changed_files(
    run: Run, options: ResumeOptions, folder: Path, shared: dict[str, Any]
) -> list[str]:
    """Compare a sample of the training images' files with what they were; returns what to say.

    Raises:
        CheckpointError: some have other sizes, which is not allowed.
    """
    sample = shared.get("data_sample", {})  # an old checkpoint has none
    if shared["data"] != run.data_fingerprint:
        return []  # the positions of the sample belong to other images
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
    anew = f"{len(files)} {of_sample} have been written anew since ({first_few(files)})"
    return [anew] if files else []


def _load(folder: Path, part: str, load: Callable[[Any], Any], state: Any) -> None:
    try:
        load(state)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: its {part} is another: {reason}") from error


def _check_sizes(folder: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Buffers of a loss whose size depends on the number of images or the batch."""
    others = [
        f"{name} {_size(value)} before, {_size(own[name])} now"
        for name, value in saved.items()
        if isinstance(value, Tensor) and name in own and value.shape != own[name].shape
    ]
    if others:
        raise CheckpointError(
            f"{folder}: what its loss has kept does not fit: {'; '.join(others)}; bring back the "
            "number of images, data.batch_size and the loss's options of before, or start a new "
            "run from its weights with checkpoint=..."
        )


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _load_optimizer(run: Run, folder: Path, state: dict[str, Any]) -> None:
    """Load the optimizer's moments; its options stay those of the config."""
    options = [
        {key: value for key, value in group.items() if key != "params"}
        for group in run.optimizer.param_groups
    ]
    _load(folder, "optimizer", run.optimizer.load_state_dict, state)
    for group, values in zip(run.optimizer.param_groups, options, strict=True):
        group.update(values)


def _restore_rank(run: Run, folder: Path, world_size: int) -> None:
    """Restore what this rank owned, or its part of what another number of ranks owned."""
    rank = distributed.rank()
    paths = [folder / f"rank_{r}.pt" for r in range(world_size)]
    if world_size == distributed.world_size():
        state = checkpoint.read(paths[rank])
        buffers = state["buffers"]
    else:
        parts = [checkpoint.read(path) for path in paths]
        state = parts[0] | {"rng": parts[rank % world_size]["rng"]}  # a new rank has none
        buffers = _resharded(run, folder, [part["buffers"] for part in parts])
    own = rank_buffers(run.loss)
    if own.keys() != buffers.keys():
        raise CheckpointError(f"{folder}: its loss has other buffers: {', '.join(buffers)}")
    buffers = {name: run.loss.fitted(name, value) for name, value in buffers.items()}
    _check_sizes(folder, buffers, own)
    for name, value in buffers.items():
        own[name].copy_(value)
    for name, hook in run.hooks.items():
        if hook_state := state["hooks"].get(name):
            hook.load_state_dict(_on(run.device, hook_state))
    torch.set_rng_state(state["rng"])
    if run.device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"])


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
    return map_leaves(lambda _, v: v.to(device) if isinstance(v, Tensor) else v, state)
