"""The last step of this process, which the launcher watches."""

from typing import Any

_finished_step = -1  # none
_last_step: Any = None  # shared with the launcher; None when nobody watches


def watched_through(last_step: Any) -> None:
    """Have ``report_step`` write to ``last_step``, a shared ctypes integer."""
    global _last_step
    _last_step = last_step


def report_step(step: int) -> None:
    """Report that ``step`` is finished, so that a message about this rank can name it."""
    global _finished_step
    _finished_step = step
    if _last_step is not None:
        _last_step.value = step


def finished_step() -> int:
    """The latest step that this process has reported; -1 for none."""
    return _finished_step
