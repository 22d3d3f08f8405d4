"""Processes: start the ranks of this machine, or join those that torchrun or SLURM started (Linux).

The launcher keeps the store through which its ranks meet, on the loopback interface only, and
every rank dies with it. A rank reports what ends it through a pipe, so that the launcher can raise
the error of the rank that failed first and drop what its death did to the others.
"""

import copy
import ctypes
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from ssl_platform.errors import ConfigError, PlatformError

logger = logging.getLogger(__name__)
R = TypeVar("R")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
STOP_SECONDS = 25.0  # to save a checkpoint when asked to stop: SLURM and Kubernetes kill after 30
ECHO_SECONDS = 2.0  # for the other ranks to leave by themselves when one has failed
TERM_SECONDS = 4.0  # from SIGTERM to SIGKILL
POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass(frozen=True)
class LaunchOptions:
    processes: int  # ranks to start on this machine
    timeout_minutes: float  # how long a collective may wait for a rank
    threads: (
        int | None
    )  # torch CPU threads of each rank; null = usable cores // ranks of this machine


class RankFailedError(PlatformError):
    """A rank ended in a way that its own words do not explain."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


def joined_world() -> tuple[int, int, int] | None:
    """(rank, world size, local rank) when torchrun or SLURM started this process; None otherwise.

    RANK and WORLD_SIZE may also be set by hand, for a world that another tool starts.

    Raises:
        ConfigError: one of the variables is not a number, or the rank is outside the world.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world_size = _number("RANK"), _number("WORLD_SIZE")
        local_rank = _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank
    elif "SLURM_PROCID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        rank, world_size = _number("SLURM_PROCID"), _number("SLURM_NTASKS")
        local_rank = _number("SLURM_LOCALID")
    else:
        return None
    if rank >= world_size:
        raise ConfigError([f"rank {rank} is outside a world of {world_size} (RANK, WORLD_SIZE)"])
    return rank, world_size, local_rank


def launch(work: Callable[..., R], args: tuple, options: LaunchOptions, *, device: str) -> R:
    """Run ``work(*args)`` on every rank and return rank 0's result. Call it in the main thread.

    ``work`` is a top-level function and ``args`` are picklable. The ranks that this function starts
    are handed a first SIGTERM, SIGUSR1 or Ctrl-C and have 25 s to finish; a second one ends them.

    Raises:
        ConfigError: there are fewer GPUs than processes, or the environment describes no world.
        PlatformError: the one that the first failing rank raised.
        RankFailedError: that rank raised another exception, or was killed.
        SystemExit: that rank left by ``sys.exit``, or this process was asked to stop.
        KeyboardInterrupt: Ctrl-C.
    """
    job = _Job(work, args, options, device)
    world = joined_world()
    if world is not None:
        return _work_as_joined(job, world)
    if device.startswith("cuda"):
        _check_gpus(options.processes)
    if options.processes > 1:
        return _work_in_ranks(job)
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    return work(*args)


@dataclass(frozen=True)
class _Job:
    """What ``launch`` was called with."""

    work: Callable[..., Any]
    args: tuple
    options: LaunchOptions
    device: str


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ConfigError([f"{name}={value!r}: the environment must give a whole number"])
    return int(value)


def _check_gpus(processes: int) -> None:
    import torch

    gpus = torch.cuda.device_count()
    if processes > gpus:
        problem = f"launch.processes={processes}: this machine has {gpus} GPU{'s' * (gpus != 1)}"
        raise ConfigError([problem])


# ---- one rank


def _work_as_joined(job: _Job, world: tuple[int, int, int]) -> Any:
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    rank, world_size, _ = world
    processes = job.options.processes
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _die_with_parent(os.getppid())  # torchrun leaves its ranks running when it is killed
    if rank == 0 and processes > 1 and processes != world_size:
        logger.warning("launch.processes=%d: not used in a world of %d", processes, world_size)
    try:
        return _work_in_group(job, world)
    except Exception as error:
        if _is_echo(error):
            message = f"rank {rank} cannot reach the other ranks: {error}"
            raise RankFailedError(message) from error
        get_error_handler().record_exception(error)  # for torchrun's summary of the failure
        raise


def _work_in_group(job: _Job, world: tuple[int, int, int]) -> Any:
    """Do the work inside the process group of ``world``."""
    import torch
    import torch.distributed as dist

    rank, world_size, local_rank = world
    if rank != 0:
        logging.disable(logging.WARNING)  # rank 0 speaks for all; errors are each rank's own
    local_world_size = _number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else 1
    torch.set_num_threads(job.options.threads or _share_of_cores(local_world_size))
    if local_world_size == world_size:  # nobody outside this machine has to reach its sockets
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    group: dict[str, Any] = {"backend": "gloo"}
    if job.device.startswith("cuda"):
        # SLURM may show each rank its own GPU only, which is then number 0.
        gpu = local_rank if torch.cuda.device_count() > 1 else 0
        _check_gpus(gpu + 1)
        torch.cuda.set_device(gpu)
        group = {"backend": "nccl", "device_id": torch.device("cuda", gpu)}
    timeout = timedelta(minutes=job.options.timeout_minutes)
    store = _store(rank, world_size, timeout)
    dist.init_process_group(store=store, rank=rank, world_size=world_size, timeout=timeout, **group)
    result = job.work(*job.args)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
    return result


def _share_of_cores(local_world_size: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // local_world_size)


def _store(rank: int, world_size: int, timeout: timedelta) -> Any:
    """The store through which the ranks of this attempt meet."""
    from torch.distributed import PrefixStore, TCPStore

    host, port = _master(world_size)
    # torchrun, and our own launcher, keep the store themselves; else rank 0 does.
    is_master = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = TCPStore(host, port, world_size, is_master, timeout, wait_for_workers=False)
    # torchrun's store outlives a restart: without a prefix the ranks would find the addresses of
    # the dead ones in it and fail to connect.
    return PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _master(world_size: int) -> tuple[str, int]:
    """Address and port of the store."""
    host = os.environ.get("MASTER_ADDR")
    if "MASTER_PORT" in os.environ:
        port = _number("MASTER_PORT")
    elif "SLURM_JOB_ID" in os.environ:
        port = 15000 + _number("SLURM_JOB_ID") % 15000  # below the ports of outgoing connections
    elif world_size == 1:
        port = 0
    else:
        raise ConfigError(["MASTER_PORT is not set: give every rank the same free port of rank 0"])
    if host is None and world_size == 1:
        host = "127.0.0.1"
    return host or _first_slurm_host(), port


def _first_slurm_host() -> str:
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        raise ConfigError(["MASTER_ADDR is not set: give every rank the host name of rank 0"])
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return hosts[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        problem = f"MASTER_ADDR is not set, and scontrol gives no hosts of {nodes}: {error}"
        raise ConfigError([problem]) from error


def _is_echo(error: BaseException) -> bool:
    """Whether ``error`` says no more than that another rank is gone."""
    from torch.distributed import DistError

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DistError):
            return True
        if isinstance(link, RuntimeError) and ("gloo" in str(link) or "NCCL" in str(link)):
            return True
        link = link.__cause__ or link.__context__
    return False


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends, in whatever way that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class _Done:
    result: Any


@dataclass(frozen=True)
class _Failure:
    is_echo: bool
    moment: float  # time.monotonic(), which is one clock for all processes of a machine
    error: BaseException


def _rank_main(job: _Job, launcher: int, writers: list[Connection]) -> None:
    """Life of a rank that the launcher started: ready, then done or failed."""
    _die_with_parent(launcher)
    os.setpgid(0, 0)  # Ctrl-C reaches the launcher alone, which hands it on once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    rank, world_size, local_rank = _number("RANK"), _number("WORLD_SIZE"), _number("LOCAL_RANK")
    reports = writers[rank]
    for writer in writers:
        if writer is not reports:
            writer.close()  # so that the pipe of a dead rank ends
    try:
        reports.send(None)
        result = _work_in_group(job, (rank, world_size, local_rank))
        reports.send(_Done(result if rank == 0 else None))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BaseException as error:
        moment = time.monotonic()
        reports.send(_Failure(_is_echo(error), moment, _to_show(error, rank)))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # gloo's threads may still wait for another rank: unwinding would abort on them


def _to_show(error: BaseException, rank: int) -> BaseException:
    """``error`` as the launcher raises it."""
    if isinstance(error, PlatformError):
        try:
            return copy.copy(error)  # what pickling does at the other end of the pipe
        except TypeError:  # its constructor takes something else than its message
            return RankFailedError(str(error), error.exit_code)
    if isinstance(error, SystemExit):
        return error if error.code else _left(rank, 0)
    trace = "".join(traceback.format_exception(error)).rstrip()
    return RankFailedError(f"rank {rank} failed:\n{trace}")


def _left(rank: int, exit_code: int) -> RankFailedError:
    """The error of a rank that said nothing; a negative ``exit_code`` is a signal."""
    if exit_code >= 0:
        message = f"rank {rank} left with exit code {exit_code} before its work was done"
        return RankFailedError(message, exit_code or 1)
    name = signal.Signals(-exit_code).name
    cause = " (out of memory is the usual cause)" if name == "SIGKILL" else ""
    return RankFailedError(f"rank {rank} was killed by {name}{cause}", 128 - exit_code)


# ---- the launcher


def _work_in_ranks(job: _Job) -> Any:
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
        "OMP_NUM_THREADS": str(job.options.threads or _share_of_cores(processes)),
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
            raise _left(rank, failure.exitcode)  # it crashed after its work, on its way out
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
        context = start_processes("rank", _rank_main, args, variables, logs, start_method="spawn")
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
        self.failures: dict[int, _Failure] = {}
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
                    self._note(rank, _Failure(False, time.monotonic(), _left(rank, exit_code)))
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
        if isinstance(report, _Failure):
            self._note(rank, report)
        elif isinstance(report, _Done):
            self.results[rank] = report.result
        else:
            self.ready.add(rank)

    def _note(self, rank: int, failure: _Failure) -> None:
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
