"""A rank's work inside the process group of its world."""

import ctypes
import logging
import os
import signal
from datetime import timedelta
from typing import Any

from ssl_platform.console.working import no_silence, working
from ssl_platform.errors import ConfigError
from ssl_platform.launch.job import Job, RankFailedError
from ssl_platform.launch.joined import World, number
from ssl_platform.launch.meeting import meet
from ssl_platform.launch.peer_errors import is_peer_error, is_peer_timeout
from ssl_platform.launch.stalled_ranks import stalled_error
from ssl_platform.launch.threads import share_of_cores

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def work_as_joined(job: Job, world: World) -> Any:
    """Do the work as one of the ranks that another program has started."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    rank, world_size = world[:2]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(os.getppid())  # torchrun leaves its ranks running when it is killed
    store: Any = None
    try:
        with no_silence(), working("waiting for the other processes"):
            store = meet(world, job.options)
        return work_in_group(job, world, store)
    except Exception as error:
        if store is not None and is_peer_timeout(error):
            stalled = stalled_error(store, rank, world_size, job.options)
            if stalled is not None:
                raise stalled from error
        if is_peer_error(error):
            message = f"rank {rank} cannot reach the other ranks: {error}"
            raise RankFailedError(message) from error
        get_error_handler().record_exception(error)  # for torchrun's summary of the failure
        raise


def work_in_group(job: Job, world: World, store: Any) -> Any:
    """Do the work inside the process group of ``world``, whose ranks meet through ``store``."""
    import torch
    import torch.distributed as dist

    rank, world_size, local_rank = world[:3]
    if rank != 0:
        logging.disable(logging.WARNING)  # rank 0 warns for all; errors are each rank's own
    local_world_size = number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else 1
    torch.set_num_threads(job.options.threads or share_of_cores(local_world_size))
    if world.is_on_one_machine:  # no other machine has to reach its sockets
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
    group |= {"store": store, "rank": rank, "world_size": world_size, "timeout": timeout}
    with no_silence():
        with working("waiting for the other processes"):
            dist.init_process_group(**group)
        result = job.work(*job.args)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
    return result


def check_gpus(processes: int) -> None:
    """Raise `ConfigError` where this machine has fewer GPUs than processes."""
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
