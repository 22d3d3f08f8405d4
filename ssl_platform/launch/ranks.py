"""Start the ranks of this machine, watch them, and end them.

The launcher keeps the store through which its ranks meet, on the loopback interface only, and
every rank dies with it. A rank reports its error through a pipe. The launcher raises the error of
the rank that failed first, and not those of the ranks that failed because that one was gone.
"""

import itertools
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawValue
from typing import Any

from ssl_platform.console.working import working
from ssl_platform.errors import PlatformError, StopRequested
from ssl_platform.launch.heartbeat import Heartbeat, ask_for_stacks
from ssl_platform.launch.job import EX_TEMPFAIL, Job, LaunchOptions, RankFailedError
from ssl_platform.launch.meeting import LOOPBACK, kept_store
from ssl_platform.launch.rank import STOP_SIGNALS, Channels, Done, Failure, exit_error, rank_main
from ssl_platform.launch.threads import share_of_cores, spin_variables

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 2.0  # for the other ranks to leave by themselves when one has failed
TERM_SECONDS = 4.0  # from SIGTERM to SIGKILL
POLL_SECONDS = 0.1


def work_in_ranks(job: Job) -> Any:
    """Do the work in new processes, from the start again when one of them dies or stalls."""
    restarts = job.options.max_restarts
    for attempt in itertools.count():
        try:
            return _attempt(job, attempt)
        except PlatformError as error:
            if attempt == restarts or not error.may_pass:
                raise
            logger.warning("%s\nrestart %d of %d", error, attempt + 1, restarts)


def _attempt(job: Job, attempt: int) -> Any:
    store = kept_store(0, timedelta(minutes=job.options.timeout_minutes))
    processes = job.options.processes
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
        "OMP_NUM_THREADS": str(job.options.threads or share_of_cores(processes)),
        **spin_variables(),
    }
    variables = {r: {**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)}
    readers, writers = _channels(processes)
    args = {rank: (job, os.getpid(), writers) for rank in range(processes)}
    with _started(args, variables) as (context, stop_requests):
        for writer in (*writers.reports, *writers.stacks):
            writer.close()
        ranks = _Ranks(context.pids(), readers, job.options)
        try:
            ranks.watch(stop_requests)
        finally:
            if not ranks.all_done():
                ranks.kill()
                context.close(signal.SIGKILL)
    if not ranks.all_done():
        raise ranks.reason_to_end(stop_requests)
    try:
        for rank, failure in context.wait(period=POLL_SECONDS).failures.items():
            raise exit_error(rank, failure.exitcode)  # it crashed after its work
    finally:
        context.close(signal.SIGKILL)  # a Ctrl-C may have ended the line above
    return ranks.results[0]


def _channels(processes: int) -> tuple[Channels, Channels]:
    """The launcher's end and the ranks' end."""
    reports = [Pipe(duplex=False) for _ in range(processes)]
    stacks = [Pipe(duplex=False) for _ in range(processes)]
    last_steps = [RawValue("q", -1) for _ in range(processes)]
    readers, writers = (
        Channels([pair[end] for pair in reports], [pair[end] for pair in stacks], last_steps)
        for end in (0, 1)
    )
    return readers, writers


@contextmanager
def _started(
    args: dict[int, tuple], variables: dict[int, dict[str, str]]
) -> Iterator[tuple[Any, list[int]]]:
    """The context of the started ranks, and a list that each stop signal is appended to."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # our error tells it already
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}
    stop_requests: list[int] = []

    def keep(number: int, _: Any) -> None:
        stop_requests.append(number)

    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # start_processes leaves the handlers to us
    resource_tracker.ensure_running()  # started later, it would undo the blocking
    # The ranks inherit what is blocked, so that a Ctrl-C during their imports gives no traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        for number, handler in handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, keep)
        logs = DefaultLogsSpecs(os.devnull)
        with _without_unreadable_main():
            context = start_processes(
                "rank", rank_main, args, variables, logs, start_method="spawn"
            )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        yield context, stop_requests
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def _without_unreadable_main() -> Iterator[None]:
    """New processes read the main module again, which they cannot where it was typed or piped."""
    main: Any = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or os.path.exists(path):
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = path


class _Ranks:
    """The running ranks of one attempt, and what they have reported."""

    def __init__(self, pids: dict[int, int], channels: Channels, options: LaunchOptions):
        self.pids, self.options = pids, options
        self.reports: dict[Any, int] = dict(zip(channels.reports, pids, strict=True))
        self.stacks = dict(zip(pids, channels.stacks, strict=True))
        steps = channels.last_steps
        self.heartbeats = {rank: Heartbeat(pid, steps[rank]) for rank, pid in pids.items()}
        self.ready: set[int] = set()
        self.results: dict[int, Any] = {}
        self.failures: dict[int, Failure] = {}
        self.term_at = self.kill_at = math.inf
        self.ending = False  # once True, a rank fails because we end it

    def all_done(self) -> bool:
        """Whether every rank has finished its work."""
        return len(self.results) == len(self.pids)

    def watch(self, stop_requests: list[int]) -> None:
        """Wait until every rank is done, or until the remaining ones have to be killed."""
        num_answered = 0
        with ExitStack() as starting:
            starting.enter_context(working(f"starting {len(self.pids)} processes"))
            while not self.all_done() and time.monotonic() < self.kill_at:
                exit_codes = self._receive()
                if 0 in self.ready:  # which says itself what it does
                    starting.close()
                if not stop_requests:  # else the ranks left because they were asked to
                    for rank, exit_code in exit_codes.items():
                        error = exit_error(rank, exit_code, self.heartbeats[rank].after_step)
                        self._add_failure(rank, Failure(error))
                if not (stop_requests or self.failures):
                    self._find_idle(exit_codes)
                if len(exit_codes) == len(self.pids):
                    return
                if len(stop_requests) > num_answered:
                    num_answered = len(stop_requests)
                    self._ask_to_stop(stop_requests[-1])
                if self.failures and self.kill_at == math.inf:
                    self.term_at = time.monotonic() + LEAVE_SECONDS
                    self.kill_at = self.term_at + TERM_SECONDS
                if time.monotonic() >= self.term_at:
                    self._find_stalled(exit_codes)
                    self.ending, self.term_at = True, math.inf
                    self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every rank, with the processes that it started."""
        self._signal(signal.SIGKILL)
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def reason_to_end(self, stop_requests: list[int]) -> BaseException:
        """What `launch` raises where not every rank is done."""
        failures = sorted(self.failures.values(), key=lambda f: (f.is_of_peer, f.moment))
        if failures and not (stop_requests and failures[0].is_of_peer):
            return failures[0].error
        number = signal.Signals(stop_requests[0])
        if number == signal.SIGINT:
            return KeyboardInterrupt()
        if number in (signal.SIGTERM, signal.SIGUSR1):
            message = f"ended by {number.name}; the same command goes on from the latest checkpoint"
            return StopRequested(message, EX_TEMPFAIL)
        return SystemExit(128 + number)

    def _running(self, exit_codes: Collection[int]) -> set[int]:
        return self.pids.keys() - exit_codes - self.failures.keys() - self.results.keys()

    def _find_idle(self, exit_codes: Collection[int]) -> None:
        """Count as failed the ranks that do nothing, although they wait for no other rank."""
        limit = 60 * self.options.timeout_minutes + LEAVE_SECONDS  # a collective gives up first
        idle = {r for r in self._running(exit_codes) if self.heartbeats[r].idle_seconds() > limit}
        self._add_stalled(idle)

    def _find_stalled(self, exit_codes: Collection[int]) -> None:
        """Count as failed the running ranks, if all others failed by waiting for them."""
        if all(failure.is_timeout for failure in self.failures.values()):
            self._add_stalled(self._running(exit_codes))

    def _add_stalled(self, ranks: set[int]) -> None:
        if ranks:
            error = RankFailedError(self._describe_stalled(sorted(ranks)))
            self._add_failure(min(ranks), Failure(error))

    def _describe_stalled(self, ranks: list[int]) -> str:
        stacks = ask_for_stacks({r: self.pids[r] for r in ranks if r in self.ready}, self.stacks)
        limit = f"launch.timeout_minutes={self.options.timeout_minutes}"
        lines = []
        for rank in ranks:
            after_step = self.heartbeats[rank].after_step
            lines.append(f"rank {rank} has stalled{after_step}: nothing for {limit}")
            lines += stacks.get(rank, "").splitlines()
        return "\n".join(lines)

    def _receive(self) -> dict[int, int]:
        """Read the reports of the ranks, and return the exit codes of those that have left."""
        wait(list(self.reports), POLL_SECONDS)
        # before the last reports are read: a rank that has left has sent them all
        codes = {rank: _exit_code(pid) for rank, pid in self.pids.items()}
        while readable := wait(list(self.reports), 0):
            for reports in readable:
                self._read(reports)
        return {rank: code for rank, code in codes.items() if code is not None}

    def _read(self, reports: Any) -> None:
        rank = self.reports[reports]
        try:
            report = reports.recv()
        except (EOFError, OSError):
            del self.reports[reports]
            return
        if isinstance(report, Failure):
            self._add_failure(rank, report)
        elif isinstance(report, Done):
            self.results[rank] = report.result
        else:
            self.ready.add(rank)

    def _add_failure(self, rank: int, failure: Failure) -> None:
        if not self.ending:
            self.failures.setdefault(rank, failure)

    def _ask_to_stop(self, number: int) -> None:
        """Send the signal to the ranks; a second one, or one before they work, ends them now."""
        if self.kill_at < math.inf or len(self.ready) < len(self.pids):
            self.kill_at = time.monotonic()
        else:
            self.kill_at = time.monotonic() + self.options.stop_seconds
            self._signal(number)

    def _signal(self, number: int) -> None:
        for pid in self.pids.values():
            os.kill(pid, number)  # no other process can have this id: see _exit_code


def _exit_code(pid: int) -> int | None:
    """How a child left (-9: killed by signal 9); None while it runs.

    The child stays a zombie, so that its id is not given to another process.
    """
    state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if state is None:
        return None
    return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status
