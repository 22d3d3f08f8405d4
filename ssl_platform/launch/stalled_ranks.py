"""Which ranks have stalled, in a world that another program started and that nobody watches.

All ranks end a step together, so the last step does not tell which of them has stalled. But a rank
whose collective has timed out writes so into the store. A rank that does not has stalled.
"""

import time
from datetime import timedelta
from typing import Any

from ssl_platform.launch.job import LaunchOptions, RankFailedError
from ssl_platform.launch.progress import finished_step

ANSWER_SECONDS = 2.0  # collectives of the ranks time out that close to each other


def stalled_error(
    store: Any, rank: int, world_size: int, options: LaunchOptions
) -> RankFailedError | None:
    """The error of ``rank``, whose collective has timed out, with the ranks that have stalled.

    Returns:
        None where the collectives of all ranks have timed out, or the store is gone.
    """
    stalled = _stalled_ranks(store, rank, world_size)
    if not stalled:
        return None
    step = finished_step()
    after_step = f" after step {step}" if step >= 0 else ""
    names = f"rank{'s' * (len(stalled) > 1)} {', '.join(map(str, stalled))}"
    return RankFailedError(
        f"{names} stalled{after_step}: rank {rank} has waited for launch.timeout_minutes="
        f"{options.timeout_minutes}"
    )


def _stalled_ranks(store: Any, rank: int, world_size: int) -> list[int]:
    from torch.distributed import DistError, DistNetworkError

    stalled = []
    end = time.monotonic() + ANSWER_SECONDS
    try:
        store.set(f"timed_out/{rank}", "")
        for other in range(world_size):
            left = timedelta(seconds=max(0.1, end - time.monotonic()))
            try:
                store.wait([f"timed_out/{other}"], left)
            except DistNetworkError:
                raise
            except DistError:
                stalled.append(other)
    except DistNetworkError:  # the rank that kept the store is gone
        return []
    return stalled
