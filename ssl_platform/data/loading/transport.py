"""Batches from data workers to the process that trains, through memory that they share.

The crops of a batch are written into a slot of a ring that lives as long as the loader does: they
are not allocated, not copied again, and not handed over through a file descriptor. All workers
share in each batch, so that few batches have to be in memory however many workers there are.
"""

import ctypes
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, pairwise
from math import ceil, prod
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from multiprocessing.util import Finalize
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch

from ssl_platform.data.loading.batch_reader import BatchReader, Report
from ssl_platform.errors import DataError, DataWorkerError
from ssl_platform.ops.image_size import height_and_width

StartMethod = Literal["fork", "spawn"]
Task = list[tuple[int, int]]  # (epoch, index) pairs of a batch
PREFETCH = 2  # batches under way, or images of each worker if these are more
ORPHAN_SECONDS = 2.0  # after which an idle worker looks whether its process still lives
# sent to every process of a job, and meant for the main one
JOB_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class HostBatch(NamedTuple):
    """A batch in this process's memory."""

    crops: list[np.ndarray]  # one (B, H, W, 3) uint8 array per crop
    label: np.ndarray  # (B,) int64
    # (B,) int64; hides tuple.index, which nobody needs
    index: np.ndarray  # type: ignore[assignment]
    reports: list[Report]


class Slot(NamedTuple):
    """Room for a batch."""

    crops: list[np.ndarray]  # one (batch_size, height, width, 3) uint8 array per crop
    indices: np.ndarray  # (batch_size,) int64

    def below(self, row: int) -> "Slot":
        """What is left from a row on."""
        return Slot([crop[row:] for crop in self.crops], self.indices[row:])


def num_slots(batch_size: int, num_workers: int) -> int:
    """Batches that are in memory: those under way, and the one that is looked at."""
    if num_workers == 0:
        return 1
    return max(PREFETCH, ceil(PREFETCH * num_workers / max(1, batch_size))) + 1


class Ring:
    """Slots of shared memory.

    A forked worker inherits it; a spawned one is handed it as it starts. It lies in /dev/shm where
    that is large enough, else in the directory for temporary files.

    Args:
        num_slots: how many batches there may be at a time.
        batch_size: the most rows of one.
        read: reads a batch.
    """

    def __init__(self, num_slots: int, batch_size: int, read: BatchReader):
        self._batch_size = batch_size
        self._shapes = [(batch_size, *height_and_width(size), 3) for size in read.crop_sizes]
        self._slot_bytes = sum(map(prod, self._shapes))
        self.memory: Any = RawArray(ctypes.c_uint8, num_slots * self._slot_bytes)
        self._indices = RawArray(ctypes.c_int64, num_slots * batch_size)

    def __getitem__(self, number: int) -> Slot:
        start, crops = number * self._slot_bytes, []
        for shape in self._shapes:
            crop = np.frombuffer(self.memory, np.uint8, prod(shape), start)
            crops.append(crop.reshape(shape))
            start += crop.nbytes
        indices = np.ctypeslib.as_array(self._indices).reshape(-1, self._batch_size)
        return Slot(crops, indices[number])


class Transport:
    """Each iteration is a pass over ``batches``.

    The crops of a batch are overwritten once the next batch is asked for.

    Args:
        read: reads a batch.
        batches: what to read.
        batch_size: the most samples that one of them has.
        num_workers: data processes; 0 reads in this one. They live as long as this object does.
        start_method: of the data workers; null is fork, which shares the data set's memory.
        timeout_seconds: that a worker may take over its part of a batch.
        pin_memory: make the crops' memory one that a GPU copies from by itself.

    Raises while iterating:
        DataError: raised by ``read``.
        DataWorkerError: a worker has died or hangs.
    """

    def __init__(
        self,
        read: BatchReader,
        batches: Iterable[Task],
        *,
        batch_size: int,
        num_workers: int,
        start_method: StartMethod | None,
        timeout_seconds: float,
        pin_memory: bool,
    ):
        self._read, self._batches, self._num_workers = read, batches, num_workers
        self._start_method, self._timeout_seconds = start_method, timeout_seconds
        self._num_slots = num_slots(batch_size, num_workers)
        self._ring = Ring(self._num_slots, batch_size, read)
        if pin_memory:
            _pin(self._ring.memory, self)
        self._workers: list[_Worker] = []
        # slots, with how many rows they will have and who fills them
        self._under_way: deque[tuple[int, int, list[_Worker]]] = deque()

    def __iter__(self) -> Iterator[HostBatch]:
        if self._num_workers == 0:
            for task in self._batches:
                report = self._read(task, *self._ring[0])
                yield self._host_batch(0, len(task), [report])
            return
        if not self._workers:
            self._start_workers()
        try:
            while self._under_way:  # of a pass that was given up
                with suppress(DataError):
                    self._take()
            tasks, free = enumerate(self._batches), deque(range(self._num_slots))
            while True:
                for number, task in islice(tasks, len(free)):
                    self._ask(number, task, free.popleft())
                if not self._under_way:
                    return
                batch, slot = self._take()
                yield batch
                free.append(slot)
        except GeneratorExit:
            raise
        except BaseException:  # answers that are left over are not those of the next pass
            self._end_workers()
            raise

    def _ask(self, number: int, task: Task, slot: int) -> None:
        """Divide a batch among the workers; other workers get one row more in each batch."""
        count = len(self._workers)
        cuts = [len(task) * part // count for part in range(count + 1)]
        asked = []
        for part, (start, end) in enumerate(pairwise(cuts)):
            if end > start:
                worker = self._workers[(part + number) % count]
                worker.ask(slot, start, task[start:end])
                asked.append(worker)
        self._under_way.append((slot, len(task), asked))

    def _take(self) -> tuple[HostBatch, int]:
        """The oldest batch that is under way, and its slot."""
        slot, rows, asked = self._under_way.popleft()
        reports: list[Report] = []
        error: Exception | None = None  # that of the earliest row
        for worker in asked:
            answer = worker.answer(self._timeout_seconds)
            if isinstance(answer, Exception):
                error = error or answer
            else:
                reports.append(answer)
        if error is not None:
            try:
                raise error
            finally:
                del error, answer  # errors that their own frame refers to keep the workers alive
        return self._host_batch(slot, rows, reports), slot

    def _host_batch(self, slot: int, rows: int, reports: list[Report]) -> HostBatch:
        crops, indices = self._ring[slot]
        index = indices[:rows].copy()  # the slot will be filled again
        return HostBatch([crop[:rows] for crop in crops], self._read.labels(index), index, reports)

    def _start_workers(self) -> None:
        context = get_context(self._start_method or "fork")
        resource_tracker.ensure_running()  # who starts it lets signals in, see below
        # A new worker inherits the mask, and keeps it until it ignores what is not meant for it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
        try:
            for number in range(self._num_workers):
                self._workers.append(_Worker(context, number, self._read, self._ring))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        processes = [worker.process for worker in self._workers]
        self._end = Finalize(self, _kill, (processes,), exitpriority=0)

    def _end_workers(self) -> None:
        self._end()
        self._workers.clear()
        self._under_way.clear()


class _Worker:
    """A data worker, seen from the process that it works for."""

    def __init__(self, context: Any, number: int, read: BatchReader, ring: Ring):
        self._number, self._read = number, read
        self._connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(number, os.getpid(), theirs, read, ring), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, slot: int, row: int, task: Task) -> None:
        """Have it fill a slot from a row on."""
        with suppress(OSError):  # it has died, which is reported when its answer is wanted
            self._connection.send((slot, row, task))

    def answer(self, timeout_seconds: float) -> Report | Exception:
        """Its answer to the oldest of its tasks."""
        if not wait([self._connection, self.process.sentinel], timeout_seconds):
            self.process.kill()
            raise DataWorkerError(
                f"a data worker has brought nothing for {timeout_seconds / 60:g} minutes, it hangs"
                f"{self._where}"
            )
        try:
            if not self._connection.poll():
                raise EOFError
            return self._connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise DataWorkerError(
                f"a data worker has died{self._where} ({_cause(self.process.exitcode)})"
            ) from None

    @property
    def _where(self) -> str:
        image = self._read.current_image(self._number)
        return f" at {image}" if image else ""


def _work(number: int, parent: int, connection: Connection, read: BatchReader, ring: Ring) -> None:
    """Main loop of data worker ``number``, which ends with the process ``parent``."""
    # Ctrl-C and a scheduler's warnings reach every process of a job, but only the main one knows
    # how to end a run, and needs its workers until then.
    for signal_number in JOB_SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, JOB_SIGNALS)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)  # a forked pool of threads has none
    read.work_as(number)
    while True:
        while not connection.poll(ORPHAN_SECONDS):
            if os.getppid() != parent:
                return
        try:
            slot, row, task = connection.recv()
            connection.send(_answer(read, task, ring[slot].below(row)))
        except (EOFError, OSError):
            return


def _answer(read: BatchReader, task: Task, slot: Slot) -> Report | Exception:
    try:
        return read(task, *slot)
    except DataError as error:
        return error
    except Exception:
        return RuntimeError(f"in a data worker: {traceback.format_exc()}")


def _cause(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "killed; the usual reason is a lack of memory: lower data.num_workers"
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _kill(processes: list[BaseProcess]) -> None:
    """End data workers at once; nothing is lost with them."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _pin(memory: Any, owner: Any) -> None:
    """Lock memory in place until ``owner`` is freed, so that a GPU can copy from it meanwhile."""
    cudart = torch.cuda.cudart()
    address = ctypes.addressof(memory)
    torch.cuda.check_error(cudart.cudaHostRegister(address, len(memory), 0))
    Finalize(owner, cudart.cudaHostUnregister, (address,))
