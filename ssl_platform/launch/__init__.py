"""Start the ranks of a job, or join those that torchrun or SLURM started (Linux)."""

from ssl_platform.launch.job import Job, Launcher, LaunchOptions, RankFailedError, Submitted
from ssl_platform.launch.joined import joined_world
from ssl_platform.launch.launchers import launcher_here, launcher_of

__all__ = [
    "Job",
    "LaunchOptions",
    "Launcher",
    "RankFailedError",
    "Submitted",
    "joined_world",
    "launcher_here",
    "launcher_of",
]
