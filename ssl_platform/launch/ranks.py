"""Start the ranks of this machine, watch them, and end them.

The launcher keeps the store through which its ranks meet, on the loopback interface only, and
every rank dies with it. A rank reports what ends it through a pipe, so that the launcher can raise
the error of the rank that failed first and drop what its death did to the others.
"""

import logging
import math
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ssl_platform.launch.job import Job
from ssl_platform.launch.rank import STOP_SIGNALS, Done, Failure, left, rank_main
from ssl_platform.launch.world import share_of_cores

STOP_SECONDS = 25.0  # to save a checkpoint when asked to stop: SLURM and Kubernetes kill after 30
ECHO_SECONDS = 2.0  # for the other ranks to leave by themselves when one has failed
TERM_SECONDS = 4.0  # from SIGTERM to SIGKILL
POLL_SECONDS = 0.1


def work_in_ranks(job: Job) -> Any:
    from torch.distributed import TCPStore

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    # The store would listen on every interface; it takes over a socket that does not.
    store = TCPStore(
        "127.0.0.1", port, None, True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    processes = job.options.processes
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": str(job.options.threads or share_of_cores(processes)),
    }
    variables = {r: {**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)}
    readers, writers = zip(*(Pipe(duplex=False) for _ in range(processes)), strict=True)
    args = {rank: (job, os.getpid(), list(writers)) for rank in range(processes)}
    with _started(args, variables) as (context, stop_requests):
        for writer in writers:
            writer.close()
        ranks = _Ranks(context.pids(), readers)
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
            raise left(rank, failure.exitcode)  # it crashed after its work, on its way out
    finally:
        context.close(signal.SIGKILL)  # a Ctrl-C may have ended the line above
    return ranks.results[0]


@contextmanager
def _started(
    args: dict[int, tuple], variables: dict[int, dict[str, str]]
) -> Iterator[tuple[Any, list[int]]]:
    """The context of the started ranks, and a list that each stop signal is appended to."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what happened is said once, by us
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}
    stop_requests: list[int] = []

    def note(number: int, _: Any) -> None:
        stop_requests.append(number)

    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # start_processes leaves the handlers to us
    resource_tracker.ensure_running()  # else it is started under way, and undoes the blocking
    # The ranks inherit what is blocked: none dies of a Ctrl-C with a traceback while it imports.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        for number, handler in handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, note)
        logs = DefaultLogsSpecs(os.devnull)
        context = start_processes("rank", rank_main, args, variables, logs, start_method="spawn")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        yield context, stop_requests
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


class _Ranks:
    """What the launcher knows of its ranks."""

    def __init__(self, pids: dict[int, int], reports: Sequence[Connection]):
        self.pids, self.reports = pids, dict(zip(reports, pids, strict=True))
        self.ready: set[int] = set()
        self.results: dict[int, Any] = {}
        self.failures: dict[int, Failure] = {}
        self.term_at = self.kill_at = math.inf
        self.ending = False  # from here on a rank fails because we end it

    def all_done(self) -> bool:
        return len(self.results) == len(self.pids)

    def watch(self, stop_requests: list[int]) -> None:
        """Return when every rank is done, or when those that are left have to be killed."""
        num_answered = 0
        while not self.all_done() and time.monotonic() < self.kill_at:
            exit_codes = self._listen()
            if not stop_requests:  # else that is what they left for
                for rank, exit_code in exit_codes.items():
                    self._note(rank, Failure(False, time.monotonic(), left(rank, exit_code)))
            if len(exit_codes) == len(self.pids):
                return
            if len(stop_requests) > num_answered:
                num_answered = len(stop_requests)
                self._ask_to_stop(stop_requests[-1])
            if self.failures and self.kill_at == math.inf:
                self.term_at = time.monotonic() + ECHO_SECONDS
                self.kill_at = self.term_at + TERM_SECONDS
            if time.monotonic() >= self.term_at:
                self.ending, self.term_at = True, math.inf
                self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every rank, with the processes that it started."""
        self._signal(signal.SIGKILL)
        for pid in self.pids.values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def reason_to_end(self, stop_requests: list[int]) -> BaseException:
        failures = sorted(self.failures.values(), key=lambda f: (f.is_echo, f.moment))
        if failures and not (stop_requests and failures[0].is_echo):
            return failures[0].error
        if stop_requests[0] == signal.SIGINT:
            return KeyboardInterrupt()
        return SystemExit(128 + stop_requests[0])

    def _listen(self) -> dict[int, int]:
        """Take in what the ranks report, and return the exit codes of those that have left."""
        wait(list(self.reports), POLL_SECONDS)
        codes = {
            rank: _exit_code(pid) for rank, pid in self.pids.items()
        }  # before the last reports
        while speaking := wait(list(self.reports), 0):
            for reports in speaking:
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
            self._note(rank, report)
        elif isinstance(report, Done):
            self.results[rank] = report.result
        else:
            self.ready.add(rank)

    def _note(self, rank: int, failure: Failure) -> None:
        if not self.ending:
            self.failures.setdefault(rank, failure)

    def _ask_to_stop(self, number: int) -> None:
        """Hand a signal on to the ranks; asked twice, or before they work, end them at once."""
        if self.kill_at < math.inf or len(self.ready) < len(self.pids):
            self.kill_at = time.monotonic()
        else:
            self.kill_at = time.monotonic() + STOP_SECONDS
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
