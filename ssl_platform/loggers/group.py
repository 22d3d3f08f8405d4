"""All loggers of a run as one: none of them can end a training by its own error."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ssl_platform.errors import PlatformError, blame
from ssl_platform.loggers.base import Logger, RunInfo

logger = logging.getLogger(__name__)


class LoggerGroup:
    """Hands what a run tells to each of its loggers, and leaves out one that fails.

    Ranks other than the first have a group without loggers.

    Args:
        loggers: by their names in the config.

    Attributes:
        config: of the run, plain values without secrets, for `RunInfo`.
    """

    def __init__(self, loggers: Mapping[str, Logger] | None = None):
        self.config: dict[str, Any] = {}
        self._waiting = dict(loggers or {})
        self._started: dict[str, Logger] = {}  # those that have not failed
        self._early: list[Callable[[Logger], None]] | None = []  # calls before start, made then

    @contextmanager
    def closing(self, results: Mapping[str, Any]) -> Iterator[None]:
        """Close the loggers at the end, with the results or, on an error, without.

        Args:
            results: of the run; they may be filled in until the end.
        """
        try:
            yield
        except BaseException:
            self.close(None)
            raise
        self.close(results)

    def start(self, run: RunInfo) -> None:
        """See `Logger.start`; those that have started already are left alone."""
        while self._waiting:
            name = next(iter(self._waiting))
            self._started[name] = self._waiting.pop(name)
            try:
                self._tell_one(name, lambda one: one.start(run))
            except PlatformError:
                del self._started[name]
                raise
        early, self._early = self._early or [], None
        for tell in early:
            self._tell(tell)

    def step(self, step: int) -> None:
        """See `Logger.step`."""
        self._tell(lambda one: one.step(step))

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """See `Logger.figures`."""
        self._tell(lambda one: one.figures(step, epoch, figures))

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """See `Logger.image`."""
        self._tell(lambda one: one.image(name, image, step))

    def embeddings(
        self, name: str, vectors: np.ndarray, images: np.ndarray, labels: Sequence[str], step: int
    ) -> None:
        """See `Logger.embeddings`."""
        self._tell(lambda one: one.embeddings(name, vectors, images, labels, step))

    def file(self, path: Path) -> None:
        """See `Logger.file`."""
        self._tell(lambda one: one.file(path))

    def sync(self) -> None:
        """See `Logger.sync`."""
        self._tell(lambda one: one.sync())

    def close(self, results: Mapping[str, Any] | None) -> None:
        """See `Logger.close`; those that are closed hear no more."""
        plain = None if results is None else json_values(results)
        self._early = None
        self._tell(lambda one: one.close(plain))
        self._started = {}

    def _tell(self, tell: Callable[[Logger], None]) -> None:
        if self._early is not None:
            self._early.append(tell)
        for name in list(self._started):
            self._tell_one(name, tell)

    def _tell_one(self, name: str, tell: Callable[[Logger], None]) -> None:
        try:
            tell(self._started[name])
        except PlatformError:
            raise
        except Exception as error:  # no network, a full disk, whatever the code of others does
            del self._started[name]
            logger.warning(
                "loggers.%s failed and hears no more, the training goes on: %s", name, blame(error)
            )


def json_values(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results as JSON has them: numbers of torch and numpy, of a user's hook, as plain ones."""
    return json.loads(json.dumps(results, default=_plain))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
