"""A rank that our launcher started, and what it reports to the launcher."""

import copy
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ssl_platform.console import keep_streams
from ssl_platform.errors import PlatformError
from ssl_platform.launch.heartbeat import answer_with_stack
from ssl_platform.launch.job import Job, RankFailedError
from ssl_platform.launch.joined import World, number
from ssl_platform.launch.limits import has_few_addresses, limit_error
from ssl_platform.launch.meeting import store_of
from ssl_platform.launch.peer_errors import is_peer_error, is_peer_timeout
from ssl_platform.launch.progress import watched_through
from ssl_platform.launch.world import die_with_parent, work_in_group

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@dataclass(frozen=True)
class Done:
    """A rank has finished its work; the result is that of rank 0."""

    result: Any


@dataclass(frozen=True)
class Failure:
    """A rank has failed.

    Attributes:
        error: for the launcher to raise.
        is_of_peer: the reason is another rank, which is gone or late.
        is_timeout: the reason is another rank that did not come in time.
        moment: time.monotonic(), which is one clock for all processes of a machine.
    """

    error: BaseException
    is_of_peer: bool = False
    is_timeout: bool = False
    moment: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Channels:
    """One end of the channels from the ranks to the launcher, each by rank."""

    reports: Sequence[Connection]  # None when a rank is ready, then `Done` or `Failure`
    stacks: Sequence[Connection]  # a rank's stack, when asked
    last_steps: Sequence[Any]  # shared integers: a rank's latest finished step


def rank_main(job: Job, launcher: int, channels: Channels) -> None:
    """What a rank runs: it reports that it is ready, then that it is done or has failed."""
    die_with_parent(launcher)
    keep_streams()
    os.setpgid(0, 0)  # Ctrl-C reaches the launcher alone, which hands it on once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    world = World(number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK"))
    rank = world.rank
    for other in set(range(world.size)) - {rank}:
        channels.reports[other].close()  # else the pipe of a dead rank would not end
        channels.stacks[other].close()
    answer_with_stack(channels.stacks[rank])
    watched_through(channels.last_steps[rank])
    reports = channels.reports[rank]
    try:
        reports.send(None)
        result = work_in_group(job, world, store_of(world, job.options))
        reports.send(Done(result if rank == 0 else None))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BaseException as error:
        failure = Failure(to_raise(error, rank), is_peer_error(error), is_peer_timeout(error))
        reports.send(failure)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # gloo's threads may still wait for another rank: unwinding would abort on them


def to_raise(error: BaseException, rank: int) -> BaseException:
    """What the launcher raises for an error of a rank: it can be pickled, and names the rank."""
    if isinstance(error, PlatformError):
        try:
            return copy.copy(error)  # what pickling does at the other end of the pipe
        except TypeError:  # its constructor takes something else than its message
            return RankFailedError(str(error), error.exit_code)
    if isinstance(error, SystemExit):
        return error if error.code else exit_error(rank, 0)
    of_limit = limit_error(error)
    if of_limit is not None:
        return type(of_limit)(f"rank {rank}: {of_limit}")
    trace = "".join(traceback.format_exception(error)).rstrip()
    return RankFailedError(f"rank {rank} failed:\n{trace}")


def exit_error(rank: int, exit_code: int, after_step: str = "") -> RankFailedError:
    """The error of a rank that left without a report; a negative ``exit_code`` is a signal."""
    if exit_code >= 0:
        message = (
            f"rank {rank} left with exit code {exit_code}{after_step} before its work was done"
        )
        return RankFailedError(message, exit_code or 1)
    name = signal.Signals(-exit_code).name
    out_of_memory = name == "SIGKILL" or (name in ("SIGABRT", "SIGSEGV") and has_few_addresses())
    cause = " (out of memory is the usual cause)" if out_of_memory else ""
    return RankFailedError(f"rank {rank} was killed by {name}{after_step}{cause}", 128 - exit_code)
