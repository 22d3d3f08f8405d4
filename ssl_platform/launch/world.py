"""The world of a rank: find it in the environment, and do the work inside its process group."""

import ctypes
import logging
import os
import signal
import socket
import subprocess
from datetime import timedelta
from typing import Any

from ssl_platform.errors import ConfigError
from ssl_platform.launch.awaited import stalled_error
from ssl_platform.launch.job import Job, LaunchOptions, RankFailedError

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def joined_world() -> tuple[int, int, int] | None:
    """(rank, world size, local rank) when torchrun or SLURM started this process; None otherwise.

    RANK and WORLD_SIZE may also be set by hand, for a world that another tool starts.

    Raises:
        ConfigError: one of the variables is not a number, or the rank is outside the world.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world_size = number("RANK"), number("WORLD_SIZE")
        local_rank = number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank
    elif "SLURM_PROCID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        rank, world_size = number("SLURM_PROCID"), number("SLURM_NTASKS")
        local_rank = number("SLURM_LOCALID")
    else:
        return None
    if rank >= world_size:
        raise ConfigError([f"rank {rank} is outside a world of {world_size} (RANK, WORLD_SIZE)"])
    return rank, world_size, local_rank


def work_as_joined(job: Job, world: tuple[int, int, int]) -> Any:
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    rank, world_size, _ = world
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(os.getppid())  # torchrun leaves its ranks running when it is killed
    if rank == 0:
        _warn_of_unused(job.options, world_size)
    store = store_of(rank, world_size, job.options)
    try:
        return work_in_group(job, world, store)
    except Exception as error:
        stalled = is_timeout(error) and stalled_error(store, rank, world_size, job.options)
        if stalled:
            raise stalled from error
        if is_echo(error):
            message = f"rank {rank} cannot reach the other ranks: {error}"
            raise RankFailedError(message) from error
        get_error_handler().record_exception(error)  # for torchrun's summary of the failure
        raise


def _warn_of_unused(options: LaunchOptions, world_size: int) -> None:
    for key, value in (("processes", options.processes), ("max_restarts", options.max_restarts)):
        if value > (key == "processes") and options.world_size != world_size:
            logger.warning("launch.%s=%d: not used in a world of %d", key, value, world_size)


def work_in_group(job: Job, world: tuple[int, int, int], store: Any) -> Any:
    """Do the work inside the process group of ``world``, whose ranks meet through ``store``."""
    import torch
    import torch.distributed as dist

    rank, world_size, local_rank = world
    if rank != 0:
        logging.disable(logging.WARNING)  # rank 0 speaks for all; errors are each rank's own
    local_world_size = number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else 1
    torch.set_num_threads(job.options.threads or share_of_cores(local_world_size))
    if _is_on_one_machine(world_size):  # nobody outside it has to reach its sockets
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    elif rank == 0:
        logger.warning(
            "the ranks of several machines trust whoever reaches their ports: "
            "run them in a network of your own"
        )
    group: dict[str, Any] = {"backend": "gloo"}
    if job.device.startswith("cuda"):
        # SLURM may show each rank its own GPU only, which is then number 0.
        gpu = local_rank if torch.cuda.device_count() > 1 else 0
        check_gpus(gpu + 1)
        torch.cuda.set_device(gpu)
        group = {"backend": "nccl", "device_id": torch.device("cuda", gpu)}
    timeout = timedelta(minutes=job.options.timeout_minutes)
    dist.init_process_group(store=store, rank=rank, world_size=world_size, timeout=timeout, **group)
    result = job.work(*job.args)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
    return result


def share_of_cores(local_world_size: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // local_world_size)


def store_of(rank: int, world_size: int, options: LaunchOptions) -> Any:
    """The store through which the ranks of this attempt meet."""
    from torch.distributed import PrefixStore, TCPStore

    timeout = timedelta(minutes=options.timeout_minutes)
    host, port = _master(world_size)
    # torchrun, and our own launcher, keep the store themselves; else rank 0 does.
    is_master = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if is_master and _is_on_one_machine(world_size):
        store = loopback_store(port, timeout)
    else:
        store = TCPStore(host, port, world_size, is_master, timeout, wait_for_workers=False)
    # torchrun's store outlives a restart: without a prefix the ranks would find the addresses of
    # the dead ones in it and fail to connect.
    return PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def loopback_store(port: int, timeout: timedelta) -> Any:
    """A store that only this machine can reach; port 0 takes a free one.

    Raises:
        ConfigError: another process listens on the port.
    """
    from torch.distributed import TCPStore

    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError([f"MASTER_PORT={port}: {reason}; choose a free one"]) from error
    # Left to itself a store listens on every interface; it takes over a socket that does not.
    return TCPStore(
        LOOPBACK,
        listener.getsockname()[1],
        None,
        True,
        timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _is_on_one_machine(world_size: int) -> bool:
    if "LOCAL_WORLD_SIZE" in os.environ:
        return number("LOCAL_WORLD_SIZE") == world_size
    return world_size == 1 or os.environ.get("SLURM_JOB_NUM_NODES") == "1"


def _master(world_size: int) -> tuple[str, int]:
    """Address and port of the store."""
    host = os.environ.get("MASTER_ADDR")
    if "MASTER_PORT" in os.environ:
        port = number("MASTER_PORT")
    elif "SLURM_JOB_ID" in os.environ:
        port = port_of_job(number("SLURM_JOB_ID"))
    elif world_size == 1:
        port = 0
    else:
        raise ConfigError(["MASTER_PORT is not set: give every rank the same free port of rank 0"])
    if _is_on_one_machine(world_size):
        host = LOOPBACK
    return host or _first_slurm_host(), port


def port_of_job(job_id: int) -> int:
    """A port that the ranks of a SLURM job agree on without a word."""
    return 15000 + job_id % 15000  # below the ports of outgoing connections


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


def is_echo(error: BaseException) -> bool:
    """Whether ``error`` says no more than that another rank is gone."""
    return _echo(error) is not None


def is_timeout(error: BaseException) -> bool:
    """Whether ``error`` says no more than that another rank did not come in time."""
    echo = _echo(error)
    return echo is not None and "timed out" in str(echo).lower()


def _echo(error: BaseException) -> BaseException | None:
    """What came of another rank's end, in the chain of causes of ``error``."""
    from torch.distributed import DistError

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DistError):
            return link
        if isinstance(link, RuntimeError) and ("gloo" in str(link) or "NCCL" in str(link)):
            return link
        link = link.__cause__ or link.__context__
    return None


def number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ConfigError([f"{name}={value!r}: the environment must give a whole number"])
    return int(value)


def check_gpus(processes: int) -> None:
    import torch

    gpus = torch.cuda.device_count()
    if processes > gpus:
        problem = f"launch.processes={processes}: this machine has {gpus} GPU{'s' * (gpus != 1)}"
        raise ConfigError([problem])


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` ends, in whatever way that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
