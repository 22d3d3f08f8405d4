"""The launchers: how the processes of a job come to be."""

import logging
from collections.abc import Sequence
from typing import Any

from ssl_platform.launch.job import Job, Launcher, LaunchOptions
from ssl_platform.launch.joined import joined_world, warn_of_tasks_that_srun_would_start
from ssl_platform.launch.ranks import work_in_ranks
from ssl_platform.launch.slurm import Slurm
from ssl_platform.launch.threads import warn_of_busy_cores
from ssl_platform.launch.world import check_gpus, work_as_joined
from ssl_platform.registry import LAUNCHERS

logger = logging.getLogger(__name__)


@LAUNCHERS.register()
class Local(Launcher):
    """Starts ``launch.processes`` ranks on this machine, and watches them.

    They are handed a first SIGTERM, SIGUSR1 or Ctrl-C and have ``stop_seconds`` to finish; a second
    one ends them. They are started again, all of them, up to ``max_restarts`` times when one of
    them dies or stalls; the work is to go on from its latest checkpoint.
    """

    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """See `Launcher.launch`; call it in the main thread.

        Raises:
            ConfigError: there are fewer GPUs than processes.
            PlatformError: the one that the first failing rank raised.
            RankFailedError: that rank raised another exception, was killed, or stalled.
            StopRequested: this process was asked to stop by SIGTERM or SIGUSR1.
            SystemExit: that rank left by ``sys.exit``, or this process got another signal.
            KeyboardInterrupt: Ctrl-C.
        """
        (job,) = jobs
        options = job.options
        if job.device.startswith("cuda"):
            check_gpus(options.processes)
        else:
            warn_of_busy_cores(options)
        if options.processes > 1 or options.max_restarts:
            return [work_in_ranks(job)]
        warn_of_tasks_that_srun_would_start()
        if options.threads is not None:
            import torch

            torch.set_num_threads(options.threads)
        return [job.work(*job.args)]


@LAUNCHERS.register()
class Joined(Launcher):
    """Joins the ranks that torchrun, SLURM or mpirun has started, of which this process is one."""

    def world_size(self, options: LaunchOptions) -> int:
        """Those that the environment tells."""
        world = joined_world()
        return world.size if world else 1

    def problems(self, options: LaunchOptions) -> list[str]:
        """There have to be ranks."""
        if joined_world() is not None:
            return []
        return ["launcher.name=Joined: nothing has started this process as one of several ranks"]

    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """See `Launcher.launch`.

        Raises:
            ConfigError: the variables of the environment describe no world.
            RankFailedError: the other ranks cannot be reached, or have stalled.
        """
        (job,) = jobs
        world = joined_world()
        assert world is not None
        if world.rank == 0:
            _warn_of_unused(job.options, world.size)
        return [work_as_joined(job, world)]


def launcher_of(options: LaunchOptions) -> Launcher:
    """The launcher that a checked config asks for; null joins ranks, or starts them here."""
    return _asked_for(options) or (Local() if joined_world() is None else Joined())


def launcher_here(options: LaunchOptions) -> Launcher:
    """The launcher of a job that is on the machine that it runs on, wherever it came from."""
    if joined_world() is not None:
        return Joined()
    launcher = launcher_of(options)
    return Local() if launcher.is_elsewhere else launcher


def _asked_for(options: LaunchOptions) -> Launcher | None:
    if options.launcher is not None:
        return LAUNCHERS.build(options.launcher)
    return Slurm(**vars(options.slurm)) if options.slurm is not None else None


def _warn_of_unused(options: LaunchOptions, world_size: int) -> None:
    expected = (_asked_for(options) or Local()).world_size(options)
    for key, value in (("processes", options.processes), ("max_restarts", options.max_restarts)):
        if value > (key == "processes") and expected != world_size:
            logger.warning("launch.%s=%d: not used in a world of %d", key, value, world_size)
