"""Start the ranks of this machine, or join those that torchrun or SLURM started (Linux)."""

from collections.abc import Callable
from typing import TypeVar

from ssl_platform.launch.job import Job, LaunchOptions, RankFailedError
from ssl_platform.launch.joined import joined_world, warn_of_tasks_that_srun_would_start
from ssl_platform.launch.ranks import work_in_ranks
from ssl_platform.launch.slurm import Submitted, submit
from ssl_platform.launch.threads import warn_of_busy_cores
from ssl_platform.launch.world import check_gpus, work_as_joined

__all__ = ["LaunchOptions", "RankFailedError", "Submitted", "joined_world", "launch", "submit"]

R = TypeVar("R")


def launch(work: Callable[..., R], args: tuple, options: LaunchOptions, *, device: str) -> R:
    """Run ``work(*args)`` on every rank and return rank 0's result. Call it in the main thread.

    ``work`` is a top-level function and ``args`` are picklable. The ranks that this function starts
    are handed a first SIGTERM, SIGUSR1 or Ctrl-C and have ``stop_seconds`` to finish; a second one
    ends them. They are started again, all of them, up to ``max_restarts`` times when one of them
    dies or stalls; ``work`` is to go on from its latest checkpoint.

    Raises:
        ConfigError: there are fewer GPUs than processes, or the environment describes no world.
        PlatformError: the one that the first failing rank raised.
        RankFailedError: that rank raised another exception, was killed, or stalled.
        StopRequested: this process was asked to stop by SIGTERM or SIGUSR1.
        SystemExit: that rank left by ``sys.exit``, or this process got another signal.
        KeyboardInterrupt: Ctrl-C.
    """
    job = Job(work, args, options, device)
    world = joined_world()
    if world is not None:
        return work_as_joined(job, world)
    if device.startswith("cuda"):
        check_gpus(options.processes)
    else:
        warn_of_busy_cores(options)
    if options.processes > 1 or options.max_restarts:
        return work_in_ranks(job)
    warn_of_tasks_that_srun_would_start()
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    return work(*args)
