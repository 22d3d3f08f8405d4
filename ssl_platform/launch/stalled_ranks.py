"""Whom the others wait for, where no launcher of ours watches the ranks.

All ranks end their steps together, so that a step tells nobody apart; but who has waited in vain
says so in the store, and who says nothing has stalled.
"""

import time
from datetime import timedelta
from typing import Any

from ssl_platform.launch.job import LaunchOptions, RankFailedError
from ssl_platform.launch.progress import finished_step

ANSWER_SECONDS = 2.0  # the time-outs of the ranks end that close to each other


def stalled_error(
    store: Any, rank: int, world_size: int, options: LaunchOptions
) -> RankFailedError | None:
    """Say that ``rank`` has waited in vain, and name those who do not say so.

    Returns:
        None where all ranks say so, or the store is gone.
    """
    stalled = _silent_ranks(store, rank, world_size)
    if not stalled:
        return None
    step = finished_step()
    after = f" after step {step}" if step >= 0 else ""
    who = ("rank " if len(stalled) == 1 else "ranks ") + ", ".join(map(str, stalled))
    return RankFailedError(
        f"{who} stalled{after}: rank {rank} has waited for launch.timeout_minutes="
        f"{options.timeout_minutes}"
    )


def _silent_ranks(store: Any, rank: int, world_size: int) -> list[int]:
    from torch.distributed import DistError, DistNetworkError

    silent = []
    end = time.monotonic() + ANSWER_SECONDS
    try:
        store.set(f"waited/{rank}", "")
        for other in range(world_size):
            left = timedelta(seconds=max(0.1, end - time.monotonic()))
            try:
                store.wait([f"waited/{other}"], left)
            except DistNetworkError:
                raise
            except DistError:
                silent.append(other)
    except DistNetworkError:  # it went with the rank that kept it
        return []
    return silent
