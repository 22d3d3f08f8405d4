"""Errors that are a user's to mend: each is shown as its message alone, never as a traceback."""

import difflib
from collections.abc import Iterable


class PlatformError(Exception):
    """Base of all errors that the command line reports in words; ``exit_code`` is the process's."""

    exit_code = 1
    may_pass = False  # whether the same work, started again, may go well


class ConfigError(PlatformError):
    """Everything that is wrong with a config, one problem per line."""

    exit_code = 2

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))

    def __reduce__(self) -> tuple:
        return type(self), (self.problems,)


class DataError(PlatformError):
    """The data set cannot go on: too many of its images are unreadable."""


class DataWorkerError(DataError):
    """A data worker has died, of what it read or for lack of memory."""

    may_pass = True


class CheckpointError(PlatformError):
    """A checkpoint is missing, damaged, or does not fit this run."""

    exit_code = 3


class DivergedError(PlatformError):
    """A value that training depends on is no longer finite."""

    exit_code = 4


class DiskError(PlatformError):
    """The disk takes no more: it is full, or read-only. What was saved before is whole."""

    exit_code = 5


class StopRequested(PlatformError):  # noqa: N818 (a wish that was granted, not an error)
    """A signal asked the run to stop. It has saved a checkpoint; the same command goes on."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code  # 75 asks a scheduler to start the run again; 130 is Ctrl-C

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.exit_code)


def nearest(word: str, choices: Iterable[str]) -> str:
    """Say what ``word`` may have meant, and what there is to choose from."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(choices)}" if choices else "there is nothing to choose from"
