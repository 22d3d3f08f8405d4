"""Saving a run: each rank writes its own files, and the first rank commits the checkpoint."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.config.options import SaveOptions
from ssl_platform.engine import checkpoint
from ssl_platform.engine.run import Run
from ssl_platform.engine.state import rank_state, shared_state
from ssl_platform.errors import ConfigError, DiskError, DivergedError, first_few
from ssl_platform.files import in_mib, inodes_left, why_not_written
from ssl_platform.ops.finite import not_finite, with_nan
from ssl_platform.ops.nested import leaves, map_leaves

logger = logging.getLogger(__name__)

TRAINED = ("model", "loss", "optimizer", "scaler")  # parts of the shared state
WRITE_ERRORS = (OSError, RuntimeError)  # torch raises the latter where its own writer fails
SPARE_ROOM = 1.5  # times the size of a checkpoint: a run writes other files too


class Saver:
    """Saves a run. Its methods are collective: all ranks call them at the same steps.

    An asynchronous save copies the state, and a thread writes the copy while the run goes on. The
    checkpoint is committed at the first step after every rank has written. There is at most one
    save under way.
    """

    def __init__(self, output_dir: Path, options: SaveOptions):
        self.output_dir, self.options = output_dir, options
        self.start = time.monotonic()
        self.periods_saved = 0  # of ``every_minutes``
        self.num_begun = self.num_failures = 0
        self.why_failed = ""  # of the latest save, if it failed
        self._writing: _Writing | None = None
        self._memory: dict[Any, Tensor] = {}  # of the latest copy, which the next one reuses

    @property
    def num_written(self) -> int:
        """Saves whose files this rank has written, or failed to write."""
        return self.num_begun - (self._writing is not None and not self._writing.files.done())

    def check_room(self, run: Run) -> None:
        """Refuse to start a training whose checkpoints the disk has no room for; collective.

        Raises:
            ConfigError: the disk of the run's directory has too little room.
        """
        size = _checkpoint_bytes(run)
        lack = _lack_of_room(self.output_dir, size) if distributed.rank() == 0 else ""
        if lack := distributed.broadcast_text(lack):
            raise ConfigError(
                [f"output_dir={self.output_dir}: {lack}, or choose a directory on another disk"]
            )

    def periods(self) -> int:
        """How often ``every_minutes`` have passed by the clock of the first rank; 0 on others."""
        minutes = self.options.every_minutes
        if minutes is None or distributed.rank() != 0:
            return 0
        return int((time.monotonic() - self.start) / (60 * minutes))

    def is_due(self, run: Run, periods: int) -> bool:
        """Whether to save now; ``periods`` is the number that all ranks have agreed on."""
        epochs, steps = self.options.every_epochs, self.options.every_steps
        return (
            (epochs is not None and run.epoch_step == 0 and run.epoch % epochs == 0)
            or (steps is not None and run.step % steps == 0)
            or periods > self.periods_saved
        )

    def save(self, run: Run, periods: int = 0) -> None:
        """Write a checkpoint, or begin to.

        Raises:
            DivergedError: the state is not finite; the checkpoints before stay.
            DiskError: too many writes in a row have failed.
        """
        self.finish()
        run.fire("on_save_start")
        own, shared = rank_state(run), shared_state(run) if distributed.rank() == 0 else {}
        with _one_thread():
            _check_finite(run, own, shared)
        self.periods_saved = max(periods, self.periods_saved)
        self.num_begun += 1
        states = {f"rank_{distributed.rank()}.pt": own}
        about: dict[str, Any] = {}
        if distributed.rank() == 0:
            states[checkpoint.SHARED] = shared
            about = {key: shared[key] for key in ("step", "epoch", "epoch_step", "world_size")}
            about |= shared["environment"]
        if self.options.asynchronous:
            with _one_thread():
                states = _copied(states, self._memory)
        folder = checkpoint.partial_folder(self.output_dir, run.step)
        files = _in_thread(_write, folder, states, self._prune)
        self._writing = _Writing(folder, states, about, files)
        if not self.options.asynchronous:
            self.finish()

    def commit_if_written(self, num_written: int) -> None:
        """Commit the save under way if all ranks have written, by the least ``num_written``."""
        if self._writing is not None and num_written == self.num_begun:
            self.finish()

    def finish(self) -> None:
        """Wait for the save under way, if there is one.

        Raises:
            DiskError: too many saves in a row have failed.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self.why_failed = writing.commit()
        self.num_failures = self.num_failures + 1 if self.why_failed else 0
        if self.num_failures >= self.options.max_failures:
            raise self._failure()

    def close(self, *, must_succeed: bool) -> None:
        """Wait for the save under way, and remove the checkpoints that are not to be kept.

        Raises:
            DiskError: the latest save has failed and ``must_succeed``; or see `finish`.
        """
        self.finish()
        self._prune()
        if must_succeed and self.num_failures:
            raise self._failure()

    def _failure(self) -> DiskError:
        return DiskError(
            f"{self.num_failures} of the latest checkpoints could not be written to "
            f"{self.output_dir / 'checkpoints'} (save.max_failures={self.options.max_failures}; "
            f"{self.why_failed}); {checkpoint.what_is_saved(self.output_dir)}: make room, and the "
            "same command goes on"
        )

    def _prune(self) -> None:
        """Remove old checkpoints. It may take a while, so the thread of the next save does it."""
        every = self.options.keep_every_epochs

        def is_kept(about: dict[str, Any]) -> bool:
            at_end = about.get("epoch_step") == 0
            return every is not None and at_end and about["epoch"] % every == 0

        if distributed.rank() == 0:
            checkpoint.prune(self.output_dir, keep=self.options.keep, is_kept=is_kept)


def _in_thread(function: Callable[..., Any], *arguments: Any) -> Future:
    """Call it in a new thread, which Python waits for before it ends."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    result = thread.submit(function, *arguments)
    thread.shutdown(wait=False)
    return result


def _write(
    folder: Path, states: dict[str, Any], make_room: Callable[[], None]
) -> dict[str, checkpoint.File]:
    make_room()
    folder.mkdir(parents=True, exist_ok=True)
    return {name: checkpoint.write(folder / name, state) for name, state in states.items()}


@dataclass
class _Writing:
    """A checkpoint whose files are being written."""

    folder: Path
    states: dict[str, Any]  # of this rank, by file
    about: dict[str, Any]  # for the manifest
    files: Future[dict[str, checkpoint.File]]  # of this rank

    def commit(self) -> str:
        """Wait for the files of all ranks and commit the checkpoint; returns why that failed."""
        error = self.files.exception()
        if error is not None and not isinstance(error, WRITE_ERRORS):
            raise error
        own = {} if error else {name: asdict(file) for name, file in self.files.result().items()}
        of_ranks = map(json.loads, distributed.all_gather_texts(json.dumps(own)))
        files = {name: checkpoint.File(**f) for rank in of_ranks for name, f in rank.items()}
        why = ""
        if distributed.rank() == 0:
            try:
                if error is not None:
                    raise error
                if len(files) < distributed.world_size() + 1:
                    raise OSError("another process could not write its part")
                checkpoint.commit(self.folder, files, self.about)
            except WRITE_ERRORS as failure:
                why = self._discard(failure)
        return distributed.broadcast_text(why)

    def _discard(self, error: Exception) -> str:
        why = why_not_written(error, self.folder.parent, _num_bytes(self.states))
        shutil.rmtree(self.folder, ignore_errors=True)
        logger.warning(
            "the checkpoint of step %s could not be written to %s (%s); the checkpoints from "
            "before stay, and the run goes on",
            self.about["step"],
            self.folder.parent,
            why,
        )
        return why


def _lack_of_room(folder: Path, num_bytes: int) -> str:
    """What a disk lacks for a checkpoint, and what to do; nothing if it has enough."""
    disk = shutil.disk_usage(folder)
    if disk.total > 0 and disk.free < SPARE_ROOM * num_bytes:  # 0: the file system does not say
        return (
            f"{in_mib(disk.free)} are free there, a checkpoint needs {in_mib(num_bytes)}; have "
            f"{in_mib(SPARE_ROOM * num_bytes)} free before the start"
        )
    inodes, num_files = inodes_left(folder), distributed.world_size() + 3
    if inodes is not None and inodes < num_files:
        return (
            f"{inodes} inodes are free there, a checkpoint needs {num_files}, one for each file; "
            "remove some files"
        )
    return ""


def _checkpoint_bytes(run: Run) -> int:
    """What all ranks will write, with the moments that the optimizer does not have yet."""
    own = torch.tensor(_num_bytes(rank_state(run)), device=run.device)
    moments = 2 if "betas" in run.optimizer.defaults else 1  # of Adam and its variants; of SGD
    to_come = (
        moments * param.nbytes
        for group in run.optimizer.param_groups
        for param in group["params"]
        if param.requires_grad and not run.optimizer.state.get(param)
    )
    shared = _num_bytes(shared_state(run))
    return shared + sum(to_come) + int(distributed.all_reduce_sum(own))


def _check_finite(run: Run, own: dict[str, Any], shared: dict[str, Any]) -> None:
    """Look at everything that will be saved except the report: a metric may be NaN."""
    bad = [
        *(name for part in TRAINED for name in not_finite(shared.get(part), part)),
        *not_finite(own["buffers"], "loss"),
    ]
    if not run.scaler.is_enabled():  # hooks see the steps that it skips
        bad += with_nan(own["hooks"], "hooks")
    if distributed.all_reduce_max(torch.tensor(len(bad), device=run.device)):
        names = filter(None, distributed.all_gather_texts(first_few(bad, 1)))
        raise DivergedError(
            f"{next(names)}: no longer finite at step {run.step} (epoch "
            f"{run.epoch + (run.epoch_step > 0)}): no checkpoint of it is written; "
            f"{checkpoint.what_is_saved(run.output_dir)}"
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads copy no faster than one, and wait for cores that data workers use."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _copied(state: Any, memory: dict[Any, Tensor]) -> Any:
    """A copy of ``state`` on the host, in the memory of an earlier copy where that fits."""

    def copy(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        place = memory.get(path)
        if place is None or (place.shape, place.dtype) != (leaf.shape, leaf.dtype):
            memory[path] = torch.empty_like(leaf, device="cpu", pin_memory=leaf.is_cuda)
        return memory[path].copy_(leaf)

    return map_leaves(copy, state)


def _num_bytes(state: Any) -> int:
    return sum(leaf.nbytes for _, leaf in leaves(state) if isinstance(leaf, Tensor))
