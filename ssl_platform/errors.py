"""Errors that are a user's to mend: each is shown as its message alone, never as a traceback."""

import difflib
from collections.abc import Iterable


class PlatformError(Exception):
    """Base of all errors that the command line reports in words; ``exit_code`` is the process's."""

    exit_code = 1


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


class CheckpointError(PlatformError):
    """A checkpoint is missing, damaged, or does not fit this run."""

    exit_code = 3


class DivergedError(PlatformError):
    """A value that training depends on is no longer finite."""

    exit_code = 4


def nearest(word: str, choices: Iterable[str]) -> str:
    """Say what ``word`` may have meant, and what there is to choose from."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(choices)}" if choices else "there is nothing to choose from"
