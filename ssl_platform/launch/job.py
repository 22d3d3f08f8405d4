"""What is launched: the work, its options, and how it may fail."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from ssl_platform.errors import PlatformError
from ssl_platform.schema import FREE

EX_TEMPFAIL = 75  # of <sysexits.h>: start it again
MIN_TIMEOUT_MINUTES = 0.01
MAX_THREADS = 4096  # far more end in a segmentation fault
NAME = re.compile(r"[A-Za-z0-9._-]+")  # nothing that a shell or sbatch could read as more


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of SLURM; see configs/launch/slurm.yaml."""

    cluster: Literal["slurm", "local"]
    folder: str
    partition: str | None
    minutes: int
    max_requeues: int
    nodes: int
    gpus_per_node: int
    cpus_per_task: int
    mem_gb: float | None
    comment: str | None
    more: dict[str, str | int]

    def problems(self) -> list[str]:
        """What cannot work, one line each, beginning with the key."""
        bounds: dict[str, tuple[float, float]] = {
            "minutes": (self.minutes, 1),
            "max_requeues": (self.max_requeues, 0),
            "nodes": (self.nodes, 1),
            "gpus_per_node": (self.gpus_per_node, 0),
            "cpus_per_task": (self.cpus_per_task, 1),
        }
        if self.mem_gb is not None:
            bounds["mem_gb"] = (self.mem_gb, 0.001)
        names = {"partition": self.partition, "comment": self.comment}
        names |= {f"more.{key}": f"{key}{value}" for key, value in self.more.items()}
        problems = _below(bounds) + [
            f"{key}={text}: letters, digits, dots, dashes and underscores only"
            for key, text in names.items()
            if text is not None and not NAME.fullmatch(text)
        ]
        if find_spec("submitit") is None:
            problems.append("cluster: submitit is not installed; pip install submitit")
        return problems


def _below(bounds: dict[str, tuple[float, float]]) -> list[str]:
    """A line for each value that is below its least."""
    return [
        f"{key}={value}: at least {least}"
        for key, (value, least) in bounds.items()
        if not value >= least
    ]


def plain_name(name: str) -> str:
    """The name of a run as one that SLURM takes: ``sweep/lr=0.1`` becomes ``sweep-lr-0.1``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


@dataclass(frozen=True)
class LaunchOptions:
    processes: int  # ranks to start on this machine
    # how long the others wait for a rank, and how long it may do nothing
    timeout_minutes: float = field(metadata=FREE)
    # from being asked to stop to being killed
    stop_seconds: float = field(metadata=FREE)
    # of all ranks, when one has died or stalled
    max_restarts: int = field(metadata=FREE)
    # submit a job instead of starting ranks here
    slurm: SlurmOptions | None = field(metadata=FREE)
    # torch CPU threads of each rank; null = usable cores // ranks here
    threads: int | None = field(metadata=FREE)
    # of data workers; null = fork
    worker_start: Literal["fork", "spawn"] | None = field(metadata=FREE)

    @property
    def world_size(self) -> int:
        return self.processes * (self.slurm.nodes if self.slurm else 1)

    def problems(self) -> list[str]:
        """What cannot work, one line each, beginning with the key."""
        bounds: dict[str, tuple[float, float]] = {
            "processes": (self.processes, 1),
            "timeout_minutes": (self.timeout_minutes, MIN_TIMEOUT_MINUTES),
            "stop_seconds": (self.stop_seconds, 0),
            "max_restarts": (self.max_restarts, 0),
        }
        problems = _below(bounds)
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            problems.append(f"threads={self.threads}: from 1 to {MAX_THREADS}, or null")
        if self.slurm is not None:
            problems += [f"slurm.{line}" for line in self.slurm.problems()]
            if self.max_restarts and self.world_size > 1:
                problems.append(
                    f"max_restarts={self.max_restarts}: with launch=slurm only of one process; "
                    "SLURM starts a job of several again as it is set up to"
                )
        return problems


class RankFailedError(PlatformError):
    """A rank ended in a way that its own words do not explain."""

    may_pass = True

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """What ``launch`` was called with."""

    work: Callable[..., Any]
    args: tuple
    options: LaunchOptions
    device: str
