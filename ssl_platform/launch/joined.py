"""The ranks that torchrun, SLURM or mpirun has started, by the variables of the environment."""

import logging
import os
from typing import NamedTuple

from ssl_platform.errors import ConfigError

logger = logging.getLogger(__name__)

RESERVED_STEPS = 0xFFFFFFF0  # from here on: the steps of a job's script and of its shell


class World(NamedTuple):
    """The place of this process among ranks that another program has started."""

    rank: int
    size: int
    local_rank: int
    is_on_one_machine: bool = True
    variables: str = "RANK WORLD_SIZE"  # to unset where they are left over from another run


class _Names(NamedTuple):
    """The variables by which a program that starts ranks numbers them."""

    rank: str
    size: str
    local_rank: str
    local_size: str


TORCHRUN = _Names("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
OPEN_MPI = _Names(*(f"OMPI_COMM_WORLD_{n}" for n in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")))
HYDRA_MPI = _Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")  # MPICH, Intel MPI


def joined_world() -> World | None:
    """The place of this process where torchrun, SLURM or mpirun started it; None otherwise.

    RANK and WORLD_SIZE may also be set by hand, for ranks that another tool starts. The script and
    the shell of a SLURM job are not among its tasks; their step says so.

    Raises:
        ConfigError: the variables contradict each other, or one is not a number.
    """
    given = [name for name in TORCHRUN[:2] if name in os.environ]
    started = _started_by_mpi(OPEN_MPI) or _started_by_mpi(HYDRA_MPI) or _started_by_slurm()
    if not given:
        return started
    if len(given) == 2:
        world = _world(TORCHRUN)
        if "TORCHELASTIC_RUN_ID" not in os.environ and started and world.size == started.size:
            _refuse_another_rank(world, started)
        return world
    (name,) = given
    value = started and (started.rank if name == "RANK" else started.size)
    if value != number(name):
        (other,) = {*TORCHRUN[:2]} - {name}
        problem = f"{name}={os.environ[name]}: {other} is not set; set both, or unset {name}"
        raise ConfigError([problem])
    return started


def warn_of_tasks_that_srun_would_start() -> None:
    """Warn where this is the script or the shell of a SLURM job of several tasks."""
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if "SLURM_PROCID" in os.environ and tasks != "1":
        logger.warning(
            "SLURM_NTASKS=%s: one process is started here, with launch.processes=1; srun python "
            "... starts one for each task",
            tasks,
        )


def number(name: str) -> int:
    """The whole number that a variable of the environment holds.

    Raises:
        ConfigError: it holds none.
    """
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ConfigError([f"{name}={value!r}: the environment must give a whole number"])
    return int(value)


def _world(names: _Names) -> World:
    rank, size = number(names.rank), number(names.size)
    local_size = number(names.local_size) if names.local_size in os.environ else None
    if names.local_rank in os.environ:
        local_rank = number(names.local_rank)
    else:
        local_rank = rank % (local_size or size or 1)
    of_machine = size if local_size is None else local_size
    if rank >= size:
        raise ConfigError([f"rank {rank} is outside a world of {size} ({', '.join(names[:2])})"])
    if local_rank >= of_machine or of_machine > size:
        raise ConfigError(
            [
                f"{names.local_rank}={local_rank}, {names.local_size}={of_machine}: cannot be in a "
                f"world of {size} ({names.size}); unset what is left from another run"
            ]
        )
    is_on_one_machine = size in (1, local_size)
    if local_size is None and os.environ.get("SLURM_JOB_NUM_NODES") == "1":
        is_on_one_machine = True
    return World(rank, size, local_rank, is_on_one_machine, " ".join(names[:2]))


def _started_by_mpi(names: _Names) -> World | None:
    if not {*names[:3]} <= os.environ.keys() or number(names.size) == 1:
        return None  # srun sets some of them too, where it serves MPI
    return _world(names)


def _started_by_slurm() -> World | None:
    if "SLURM_PROCID" not in os.environ:
        return None
    step = number("SLURM_STEP_ID") if "SLURM_STEP_ID" in os.environ else RESERVED_STEPS
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        size = "SLURM_STEP_NUM_TASKS"
    elif step < RESERVED_STEPS or number("SLURM_PROCID") > 0:
        size = "SLURM_NTASKS"
    else:  # the script of a job
        return None
    if number(size) == 1:
        return None
    nodes = os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_JOB_NUM_NODES"))
    world = _world(_Names("SLURM_PROCID", size, "SLURM_LOCALID", ""))
    return world._replace(is_on_one_machine=nodes == "1", variables="SLURM_PROCID")


def _refuse_another_rank(world: World, started: World) -> None:
    if world.rank != started.rank:
        raise ConfigError(
            [
                f"RANK={world.rank}, but this is process {started.rank} of {started.size} "
                f"({started.variables}): unset RANK WORLD_SIZE, which are then had from there"
            ]
        )
