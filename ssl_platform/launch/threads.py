"""Threads that torch computes with on a CPU: how long they wait, and whether cores are free."""

import logging
import os

from ssl_platform.launch.job import LaunchOptions

logger = logging.getLogger(__name__)

# Threads of GNU OpenMP spin before they sleep, by default for 300,000 turns where each has a core.
# Beside other programs that costs most of the speed. 20,000 turns nearly double it there, and cost
# a tenth on a free machine (docs/speed.md)
SPIN_COUNT = "20000"
OF_SPINNING = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}  # each decides how long threads spin


def spin_variables() -> dict[str, str]:
    """Environment that bounds the spinning of threads; it acts before torch is imported.

    Returns:
        Nothing where the user's own environment says how long they spin.
    """
    return {} if OF_SPINNING & set(os.environ) else {"GOMP_SPINCOUNT": SPIN_COUNT}


def num_threads(options: LaunchOptions) -> int:
    """Threads of each rank that `launch` starts on this machine."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if options.threads is None and options.processes == 1 and given.isdecimal():
        return int(given)
    return options.threads or share_of_cores(options.processes)


def share_of_cores(local_world_size: int) -> int:
    """Threads for each of the ranks of this machine."""
    return max(1, len(os.sched_getaffinity(0)) // local_world_size)


def warn_of_busy_cores(options: LaunchOptions, *, load: float | None = None) -> None:
    """Say so where threads will wait for each other on cores that other programs use.

    Args:
        load: mean number of busy cores in the last minute; by default what the system says.
    """
    threads, cores = num_threads(options), len(os.sched_getaffinity(0))
    busy = min(os.getloadavg()[0] if load is None else load, cores)
    wanted = threads * options.processes
    if threads > 1 and wanted > cores - round(busy):
        logger.warning(
            "%d threads, but %.1f of %d cores were busy in the last minute: threads wait for the "
            "slowest of them; if the cores stay busy, launch.threads=1 may be faster",
            wanted,
            busy,
            cores,
        )
