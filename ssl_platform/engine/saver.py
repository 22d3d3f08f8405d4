"""When a run is saved, and by whom: every rank writes its own files, the first one commits them."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

logger = logging.getLogger(__name__)

DIGEST_BYTES = 32  # of SHA-256
TRAINED = ("model", "loss", "optimizer", "scaler")  # of what is shared
MAX_NAME = 200  # bytes of a name in an error that another rank tells
WRITE_ERRORS = (OSError, RuntimeError)  # torch raises the latter where its own writer fails
SPARE_ROOM = 1.5  # times a checkpoint, for what else a run writes


class Saver:
    """Saves a run. Its methods are collective: all ranks call them at the same steps.

    An asynchronous save copies the state, and a thread writes the copy while the run goes on; the
    checkpoint has its name from the first step after every rank has written. One save is under
    way at a time.

    Attributes:
        num_written: saves whose files this rank has written, or failed to.
    """

    def __init__(self, output_dir: Path, options: SaveOptions):
        self.output_dir, self.options = output_dir, options
        self.start = time.monotonic()
        self.periods_saved = 0  # of ``every_minutes``
        self.num_begun = self.num_failures = 0
        self.why_failed = ""  # the latest save, if it has
        self._writing: _Writing | None = None
        self._copy: Any = None  # memory of the latest copy, written again by the next

    @property
    def num_written(self) -> int:
        return self.num_begun - (self._writing is not None and self._writing.is_alive())

    def check_room(self, run: Run) -> None:
        """Refuse to train towards a checkpoint that the disk cannot take; collective.

        Raises:
            ConfigError: the disk of the run's directory has too little room.
        """
        size, problem = _checkpoint_bytes(run), ""
        if distributed.rank() == 0:
            disk = shutil.disk_usage(self.output_dir)
            names, num_files = inodes_left(self.output_dir), distributed.world_size() + 3
            if disk.total > 0 and disk.free < SPARE_ROOM * size:  # 0: it does not tell
                problem = (
                    f"output_dir={self.output_dir}: {in_mib(disk.free)} are free there, a "
                    f"checkpoint needs {in_mib(size)}; have {in_mib(SPARE_ROOM * size)} free "
                    "before the start, or choose a directory on another disk"
                )
            elif names is not None and names < num_files:
                problem = (
                    f"output_dir={self.output_dir}: {names} inodes are free there, a checkpoint "
                    f"needs {num_files}, one for each file; remove some files, or choose a "
                    "directory on another disk"
                )
        problem = distributed.broadcast_text(problem)
        if problem:
            raise ConfigError([problem])

    def periods(self) -> int:
        """How often ``every_minutes`` have passed; the first rank's clock is the ranks' clock."""
        minutes = self.options.every_minutes
        if minutes is None or distributed.rank() != 0:
            return 0
        return int((time.monotonic() - self.start) / (60 * minutes))

    def is_due(self, run: Run, periods: int) -> bool:
        """Whether to save now; ``periods`` is what all ranks have agreed on."""
        epochs, steps = self.options.every_epochs, self.options.every_steps
        return (
            (epochs is not None and run.epoch_step == 0 and run.epoch % epochs == 0)
            or (steps is not None and run.step % steps == 0)
            or periods > self.periods_saved
        )

    def save(self, run: Run, periods: int = 0) -> None:
        """Write a checkpoint, or begin to.

        Raises:
            DivergedError: the state is not finite; what was saved before stays.
            DiskError: it is the last of too many writes in a row that have failed.
        """
        self.finish()
        run.fire("on_save_start")
        own, shared = rank_state(run), shared_state(run) if distributed.rank() == 0 else {}
        with _one_thread():
            _refuse_what_is_not_finite(run, own, shared)
        self.periods_saved = max(periods, self.periods_saved)
        self.num_begun += 1
        states = {f"rank_{distributed.rank()}.pt": own}
        about: dict[str, Any] = {}
        if distributed.rank() == 0:
            states[checkpoint.SHARED] = shared
            about = {
                key: shared[key] for key in ("step", "epoch", "epoch_step", "world_size")
            } | shared["environment"]
        if self.options.asynchronous:
            with _one_thread():
                self._copy = states = _copied(states, self._copy)
        folder = checkpoint.partial_folder(self.output_dir, run.step)
        self._writing = _Writing(folder, states, about, self._prune, run.device)
        if self.options.asynchronous:
            self._writing.start()
        else:
            self._writing.run()
            self.finish()

    def commit_what_is_written(self, num_written: int) -> None:
        """End the save under way if all ranks have written; they agreed on ``num_written``."""
        if self._writing is not None and num_written == self.num_begun:
            self.finish()

    def finish(self) -> None:
        """Wait for the save under way, if there is one.

        Raises:
            DiskError: it is the last of too many in a row that have failed.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        self.why_failed = writing.commit()
        self.num_failures = self.num_failures + 1 if self.why_failed else 0
        if self.num_failures >= self.options.max_failures:
            raise self._failure()

    def close(self, *, must_succeed: bool) -> None:
        """Wait for the save under way, and remove what is not to be kept.

        Raises:
            DiskError: the latest save has failed, and it ``must_succeed``, or see `finish`.
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
        """Large files take a while to remove: the next save does it, where nobody waits."""
        every = self.options.keep_every_epochs

        def is_kept(about: dict[str, Any]) -> bool:
            at_end = about.get("epoch_step") == 0
            return every is not None and at_end and about["epoch"] % every == 0

        if distributed.rank() == 0:
            checkpoint.prune(self.output_dir, keep=self.options.keep, is_kept=is_kept)


class _Writing(threading.Thread):
    """The files that this rank adds to one checkpoint, as they are written."""

    def __init__(
        self,
        folder: Path,
        states: dict[str, Any],
        about: dict[str, Any],
        make_room: Callable[[], None],
        device: torch.device,
    ):
        super().__init__(name="checkpoint")  # one that is cut off as Python ends may crash it
        self.folder, self.states, self.about = folder, states, about
        self.make_room, self.device = make_room, device
        self.files: dict[str, checkpoint.File] = {}
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.make_room()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.files = {
                name: checkpoint.write(self.folder / name, state)
                for name, state in self.states.items()
            }
        except Exception as error:  # handed to the main thread
            self.error = error

    def commit(self) -> str:
        """Wait for the files of all ranks and make a checkpoint of them; returns why it failed."""
        if self.ident is not None:  # a thread, not a call
            self.join()
        if self.error is not None and not isinstance(self.error, WRITE_ERRORS):
            raise self.error
        files = self._files_of_all_ranks()
        why = ""
        if distributed.rank() == 0:
            try:
                if self.error is not None:
                    raise self.error
                if len(files) < distributed.world_size() + 1:
                    raise OSError("another process could not write its part")
                checkpoint.commit(self.folder, files, self.about)
            except WRITE_ERRORS as error:
                why = self._give_up(error)
        return distributed.broadcast_text(why)

    def _files_of_all_ranks(self) -> dict[str, checkpoint.File]:
        """By name; without those that could not be written."""
        mine = self.files.get(f"rank_{distributed.rank()}.pt")
        encoded = bytes(8 + DIGEST_BYTES)
        if mine is not None:
            encoded = mine.bytes.to_bytes(8, "big") + bytes.fromhex(mine.sha256)
        row = torch.tensor(list(encoded), dtype=torch.uint8, device=self.device)
        rows = distributed.all_gather(row).view(-1, len(encoded)).tolist()
        found = dict(self.files)
        for rank, numbers in enumerate(rows):
            size = int.from_bytes(bytes(numbers[:8]), "big")
            if size:
                found[f"rank_{rank}.pt"] = checkpoint.File(size, bytes(numbers[8:]).hex())
        return found

    def _give_up(self, error: Exception) -> str:
        needed = sum(_num_bytes(state) for state in self.states.values())
        why = why_not_written(error, self.folder.parent, needed)
        shutil.rmtree(self.folder, ignore_errors=True)
        logger.warning(
            "the checkpoint of step %s could not be written to %s (%s); the checkpoints from "
            "before stay, and the run goes on",
            self.about["step"],
            self.folder.parent,
            why,
        )
        return why


def _checkpoint_bytes(run: Run) -> int:
    """What all ranks will write, with the moments that the optimizer has yet to gather."""
    own = torch.tensor(_num_bytes(rank_state(run)), device=run.device)
    moments = 2 if "betas" in run.optimizer.defaults else 1  # of Adam and its kin; of SGD
    to_come = (
        moments * param.nbytes
        for group in run.optimizer.param_groups
        for param in group["params"]
        if param.requires_grad and not run.optimizer.state.get(param)
    )
    shared = _num_bytes(shared_state(run))
    return shared + sum(to_come) + int(distributed.all_reduce_sum(own))


def _refuse_what_is_not_finite(run: Run, own: dict[str, Any], shared: dict[str, Any]) -> None:
    """Look at all that is to be saved but for figures: a metric may be NaN."""
    bad = [
        *(name for part in TRAINED for name in not_finite(shared.get(part), part)),
        *not_finite(own["buffers"], "loss"),
    ]
    if not run.scaler.is_enabled():  # hooks have seen the steps that it left out
        bad += with_nan(own["hooks"], "hooks")
    if distributed.all_reduce_max(torch.tensor(len(bad), device=run.device)):
        raise DivergedError(
            f"{_named_on_any_rank(bad, run.device)}: no longer finite at step {run.step} (epoch "
            f"{run.epoch + (run.epoch_step > 0)}): no checkpoint of it is written; "
            f"{checkpoint.what_is_saved(run.output_dir)}"
        )


def _named_on_any_rank(names: list[str], device: torch.device) -> str:
    """The first name of the first rank that has one, and how many more that rank has."""
    told = first_few(names, 1)
    row = torch.zeros(MAX_NAME, dtype=torch.uint8, device=device)
    encoded = torch.tensor(list(told.encode()[:MAX_NAME]), dtype=torch.uint8)
    row[: len(encoded)] = encoded
    rows = distributed.all_gather(row).view(-1, MAX_NAME).tolist()
    return next(bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows if any(row))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads are no faster at moving memory, and wait for cores that data workers use."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _copied(state: Any, memory: Any) -> Any:
    """A copy of ``state`` on the host, in the memory of an earlier copy as far as that fits."""
    if isinstance(state, Tensor):
        fits = (
            isinstance(memory, Tensor)
            and memory.shape == state.shape
            and memory.dtype == state.dtype
        )
        if not fits:
            memory = torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return memory.copy_(state)
    if isinstance(state, dict):
        memory = memory if isinstance(memory, dict) else {}
        return {key: _copied(value, memory.get(key)) for key, value in state.items()}
    if isinstance(state, list | tuple):
        memory = memory if isinstance(memory, list | tuple) else ()
        pairs = zip(state, (*memory, *[None] * len(state)), strict=False)
        return type(state)(_copied(value, place) for value, place in pairs)
    return state


def _num_bytes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(_num_bytes, state.values()))
    return sum(map(_num_bytes, state)) if isinstance(state, list | tuple) else 0
