"""What is launched: the work, its options, and how it may fail."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssl_platform.errors import PlatformError


@dataclass(frozen=True)
class LaunchOptions:
    processes: int  # ranks to start on this machine
    timeout_minutes: float  # how long the others wait for a rank, and how long it may do nothing
    stop_seconds: float  # from being asked to stop to being killed
    max_restarts: int  # of all ranks, when one has died or stalled
    threads: int | None  # torch CPU threads of each rank; null = usable cores // ranks here


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
