"""Errors that are a user's to mend: each is shown as its message alone, never as a traceback."""

import difflib
import os
import traceback
from collections.abc import Iterable
from typing import Any

from yaml import YAMLError

PACKAGE = os.path.dirname(__file__) + os.sep
MAX_REASON = 300  # letters of what somebody's code says


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


class CollapseError(PlatformError):
    """The training has collapsed, and the user has asked for an error then."""

    exit_code = 6


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


def first_few(names: Iterable[Any], most: int = 5, *, between: str = ", ") -> str:
    """The first of some names, and how many more there are: ``a, b and 3 more``."""
    shown = [str(name) for name in names]
    rest = len(shown) - most
    return between.join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 channel``, ``3,000 images``."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def blame(error: BaseException) -> str:
    """What somebody's code raised, and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f"{os.sep}torch{os.sep}" not in f.filename]
    theirs = [f for f in theirs if not f.filename.startswith(PACKAGE)] or theirs
    place = theirs[-1] if theirs else None
    reason = " ".join(str(error).split())
    if len(reason) > MAX_REASON:
        reason = reason[:MAX_REASON] + " ..."
    told = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return f"{told} ({place.filename}, line {place.lineno})" if place else told


def kind_of(value: Any) -> str:
    """What some value is, in the words of a message: ``float32 (32, 32, 1)``, ``a tuple of 2``."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        kind = "" if type(value).__name__ == "ndarray" else f"a {type(value).__name__}, "
        return f"{kind}{str(dtype).removeprefix('torch.')} {tuple(shape)}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """What an error says in one line; its type where it says nothing."""
    if isinstance(error, YAMLError):  # it says what on one line and where on others
        return " ".join(str(error).split())
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
