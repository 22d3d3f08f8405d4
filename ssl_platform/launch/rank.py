"""The life of a rank that our launcher started, and what it tells the launcher."""

import copy
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ssl_platform.console import keep_streams
from ssl_platform.errors import PlatformError
from ssl_platform.launch.heartbeat import answer_with_stack
from ssl_platform.launch.job import Job, RankFailedError
from ssl_platform.launch.joined import World, number
from ssl_platform.launch.limits import has_few_addresses, in_words
from ssl_platform.launch.meeting import store_of
from ssl_platform.launch.progress import watched_through
from ssl_platform.launch.world import die_with_parent, is_echo, is_timeout, work_in_group

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@dataclass(frozen=True)
class Done:
    result: Any


@dataclass(frozen=True)
class Failure:
    is_echo: bool
    moment: float  # time.monotonic(), which is one clock for all processes of a machine
    error: BaseException
    is_timeout: bool = False  # an echo of a rank that did not come in time


@dataclass(frozen=True)
class Channels:
    """What leads from the ranks to the launcher, each by rank."""

    reports: Sequence[Connection]  # that it is ready, done or failed
    stacks: Sequence[Connection]  # its stack, when asked
    last_steps: Sequence[Any]  # shared integers: its latest finished step


def rank_main(job: Job, launcher: int, channels: Channels) -> None:
    """Life of a rank that the launcher started: ready, then done or failed."""
    die_with_parent(launcher)
    keep_streams()
    os.setpgid(0, 0)  # Ctrl-C reaches the launcher alone, which hands it on once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    world = World(number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK"))
    rank = world.rank
    for other in set(range(world.size)) - {rank}:
        channels.reports[other].close()  # so that the pipe of a dead rank ends
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
        moment = time.monotonic()
        shown = _to_show(error, rank)
        reports.send(Failure(is_echo(error), moment, shown, is_timeout(error)))
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
        return error if error.code else left(rank, 0)
    limited = in_words(error)
    if limited is not None:
        return type(limited)(f"rank {rank}: {limited}")
    trace = "".join(traceback.format_exception(error)).rstrip()
    return RankFailedError(f"rank {rank} failed:\n{trace}")


def left(rank: int, exit_code: int, after: str = "") -> RankFailedError:
    """The error of a rank that said nothing; a negative ``exit_code`` is a signal."""
    if exit_code >= 0:
        message = f"rank {rank} left with exit code {exit_code}{after} before its work was done"
        return RankFailedError(message, exit_code or 1)
    name = signal.Signals(-exit_code).name
    out_of_memory = name == "SIGKILL" or (name in ("SIGABRT", "SIGSEGV") and has_few_addresses())
    cause = " (out of memory is the usual cause)" if out_of_memory else ""
    return RankFailedError(f"rank {rank} was killed by {name}{after}{cause}", 128 - exit_code)
