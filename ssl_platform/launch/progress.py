"""How far this process is, for the launcher that watches it."""

from typing import Any

_finished = -1  # none
_last_step: Any = None  # a number in memory that the launcher shares; None when nobody watches


def watched_through(last_step: Any) -> None:
    """Have ``report_step`` write to ``last_step``, a shared ctypes integer."""
    global _last_step
    _last_step = last_step


def report_step(step: int) -> None:
    """Say that ``step`` is finished, so that a rank which dies or stalls can be told with it."""
    global _finished
    _finished = step
    if _last_step is not None:
        _last_step.value = step


def finished_step() -> int:
    """The latest step that this process has reported; -1 for none."""
    return _finished
