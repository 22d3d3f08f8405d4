"""The work to launch, its options, and the error of a rank that fails."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from ssl_platform.errors import PlatformError

EX_TEMPFAIL = 75  # of <sysexits.h>: start it again
FREE = {"free_to_change": True}  # metadata of keys that may differ when a run goes on
MAX_THREADS = 4096  # far more end in a segmentation fault
NAME = re.compile(r"[A-Za-z0-9._-]+")  # nothing that a shell or sbatch could read as more


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks of SLURM; see configs/launch/slurm.yaml."""

    cluster: Literal["slurm", "local"]
    folder: str
    partition: str | None
    minutes: Annotated[int, Ge(1)]
    max_requeues: Annotated[int, Ge(0)]
    nodes: Annotated[int, Ge(1)]
    gpus_per_node: Annotated[int, Ge(0)]
    cpus_per_task: Annotated[int, Ge(1)]
    mem_gb: Annotated[float, Ge(0.001), "or null"] | None
    comment: str | None
    more: dict[str, str | int]

    def problems(self) -> list[str]:
        """Rules that are no ranges: one line for each that is broken, beginning with the key."""
        names = {"partition": self.partition, "comment": self.comment}
        names |= {f"more.{key}": f"{key}{value}" for key, value in self.more.items()}
        problems = [
            f"{key}={text}: letters, digits, dots, dashes and underscores only"
            for key, text in names.items()
            if text is not None and not NAME.fullmatch(text)
        ]
        if find_spec("submitit") is None:
            problems.append("cluster: submitit is not installed; pip install submitit")
        return problems


def plain_name(name: str) -> str:
    """The name of a run as one that SLURM takes: ``sweep/lr=0.1`` becomes ``sweep-lr-0.1``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


@dataclass(frozen=True)
class LaunchOptions:
    """Options of the config's ``launch``."""

    processes: Annotated[int, Ge(1)]  # ranks to start on this machine
    # how long the others wait for a rank, and how long it may do nothing
    timeout_minutes: Annotated[float, Ge(0.01)] = field(metadata=FREE)
    # from being asked to stop to being killed
    stop_seconds: Annotated[float, Ge(0)] = field(metadata=FREE)
    # of all ranks, when one has died or stalled
    max_restarts: Annotated[int, Ge(0)] = field(metadata=FREE)
    # submit a job instead of starting ranks here
    slurm: SlurmOptions | None = field(metadata=FREE)
    # torch CPU threads of each rank; null = usable cores // ranks here
    threads: Annotated[int, Interval(ge=1, le=MAX_THREADS), "or null"] | None = field(metadata=FREE)
    # of data workers; null = fork
    worker_start: Literal["fork", "spawn"] | None = field(metadata=FREE)

    @property
    def world_size(self) -> int:
        """Ranks on all machines."""
        return self.processes * (self.slurm.nodes if self.slurm else 1)

    def problems(self) -> list[str]:
        """Rules that are no ranges: one line for each that is broken, beginning with the key."""
        problems = []
        if self.slurm is not None:
            problems += [f"slurm.{line}" for line in self.slurm.problems()]
            if self.max_restarts and self.world_size > 1:
                problems.append(
                    f"max_restarts={self.max_restarts}: with launch=slurm only of one process; "
                    "SLURM starts a job of several again as it is set up to"
                )
        return problems


class RankFailedError(PlatformError):
    """A rank was killed, has stalled, or raised an error that is no `PlatformError`."""

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
