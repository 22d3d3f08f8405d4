"""Tell a rank that has stalled from one that works, and show its stack."""

import faulthandler
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

ASK_FOR_STACK = signal.SIGUSR2  # data workers ignore it
STACK_SECONDS = 1.0  # for a rank to write its stack
IDLE_SHARE = 0.01  # of a core, which background threads of an idle rank may use
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Heartbeat:
    """How long a rank has neither finished a step nor used its processor.

    Args:
        pid: of the rank.
        last_step: shared with the rank, which writes its finished steps; -1 before the first.
    """

    def __init__(self, pid: int, last_step: Any):
        self._pid, self._last_step = pid, last_step
        self._last_work = self._look()

    def idle_seconds(self) -> float:
        """Seconds since it last did either."""
        step, cpu, now = self._look()
        last_step, last_cpu, then = self._last_work
        if step != last_step or cpu - last_cpu > 2 / TICKS_PER_SECOND + IDLE_SHARE * (now - then):
            self._last_work = step, cpu, now
        return now - self._last_work[2]

    @property
    def after_step(self) -> str:
        """Its last finished step, for a message: `` after step 7``, or nothing."""
        step = self._last_step.value
        return f" after step {step}" if step >= 0 else ""

    def _look(self) -> tuple[int, float, float]:
        return self._last_step.value, _cpu_seconds(self._pid), time.monotonic()


def _cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a child, which may have ended but is not waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def answer_with_stack(stack: Connection) -> None:
    """Have this process write its main thread's stack to ``stack`` when it gets the signal."""
    faulthandler.register(ASK_FOR_STACK, file=stack.fileno(), all_threads=False)


def ask_for_stacks(pids: Mapping[int, int], stacks: Mapping[int, Connection]) -> dict[int, str]:
    """The stacks of some ranks, innermost call first; a process that the kernel stopped has none.

    Args:
        pids: by rank.
        stacks: the readers of what each rank was given in ``answer_with_stack``, by rank.
    """
    for pid in pids.values():
        os.kill(pid, ASK_FOR_STACK)
    texts = dict.fromkeys(pids, b"")
    end = time.monotonic() + STACK_SECONDS
    while (left := end - time.monotonic()) > 0:
        for rank in pids:
            if wait([stacks[rank]], left / len(pids)):
                texts[rank] += os.read(stacks[rank].fileno(), 65536)
    return {rank: text.decode(errors="replace").rstrip() for rank, text in texts.items()}
