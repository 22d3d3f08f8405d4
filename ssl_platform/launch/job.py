"""The work to launch, its options, the base of launchers, and the error of a rank that fails."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Interval

from ssl_platform.errors import PlatformError

EX_TEMPFAIL = 75  # of <sysexits.h>: start it again
FREE = {"free_to_change": True}  # metadata of keys that may differ when a run goes on
MAX_THREADS = 4096  # far more end in a segmentation fault


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

    # a launcher by its name; null: SLURM where ``slurm`` is set, else the ranks of this machine
    launcher: dict[str, Any] | None = field(default=None, metadata=FREE)


class RankFailedError(PlatformError):
    """A rank was killed, has stalled, or raised an error that is no `PlatformError`."""

    may_pass = True

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """Work to launch: ``work(*args)``, of a top-level function and what can be pickled."""

    work: Callable[..., Any]
    args: tuple
    options: LaunchOptions
    device: str = ""  # of each rank; empty where the machine is not known yet
    name: str = ""  # of the run

    def __call__(self) -> Any:
        """Do the work, in the process that is to do it."""
        return self.work(*self.args)


class Launcher(ABC):
    """Base of launchers: how the processes of a job come to be.

    Attributes:
        is_elsewhere: true for one that hands jobs over to other machines: what this machine has is
            not checked, each job claims its own run directory there, and the command does not wait.
    """

    is_elsewhere: ClassVar[bool] = False

    def world_size(self, options: LaunchOptions) -> int:
        """The number of ranks of a job, on all machines."""
        return options.processes

    def problems(self, options: LaunchOptions) -> list[str]:
        """Rules among ``launch`` that are no ranges: a line each, beginning with the key below."""
        return []

    @abstractmethod
    def launch(self, jobs: Sequence[Job]) -> list[Any]:
        """Run jobs whose ``launch`` is the same, or submit them.

        Args:
            jobs: of a launcher that is elsewhere any number: ``job()`` there is the whole run. Else
                one, whose ``work(*args)`` is to be done by every rank in a process group.

        Returns:
            For each job what its first rank has returned; of one that was handed over, what is
            printed of it, as `Submitted`.
        """


@dataclass(frozen=True)
class Submitted:
    """A job that was handed over."""

    job_id: str
    log: Path  # of its first process

    def __str__(self) -> str:
        return f"submitted job {self.job_id}, log in {self.log}"
