"""The base of loggers, and what a logger is told of its run."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POSITION = ("step", "epoch", "seconds")  # of every line; all other names are of figures


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told of the run, when its training starts or goes on."""

    name: str
    config: dict[str, Any]  #: plain values by top-level key, secrets struck out
    output_dir: Path  #: of the run: a logger keeps there what it needs to go on
    step: int  #: finished steps; above 0 for a run that is resumed
    position: int  #: finished steps, if all epochs had been as long as the present ones
    num_epochs: int
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Of the whole training, if all epochs are as long as the present ones."""
        return self.num_epochs * self.steps_per_epoch

    def position_at(self, step: int) -> int:
        """The position when ``step`` steps are finished."""
        return self.position + step - self.step


class Logger:
    """Base of loggers. Subclasses override ``figures`` and what else they need.

    A logger is constructed with its options alone, also by each check of a config; it opens files
    and connections in ``start``. Only the first rank has loggers. Calls come in the order of the
    training and are waited for, so a slow logger slows the training down. A run that is resumed
    calls ``start`` again, in a new process, with the step that it goes on from: the steps after it
    come once more, and replace what was heard of them before.

    A logger that raises an error is reported once and left out from then on; the training goes on.
    Only a `PlatformError`, e.g. a `ConfigError`, ends the run.

    Attributes:
        enabled: false for a logger that its options leave out of the run.
    """

    enabled = True

    def start(self, run: RunInfo) -> None:
        """Before the first step of this process."""

    def step(self, step: int) -> None:
        """So many steps are finished; called after each of them, so it has to be quick."""

    @abstractmethod
    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """The figures of some steps, or what hooks report at the end of an epoch.

        Args:
            step: finished steps, over all epochs.
            epoch: finished epochs.
            figures: numbers by name, as in a line of ``metrics.jsonl``: ``loss`` (mean over ranks
                and over the steps since the last figures), ``lr``, ..., or ``health/...``; the last
                is ``seconds`` since this process began to train.
        """

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """A picture, (H, W, 3) uint8."""

    def embeddings(
        self, name: str, vectors: np.ndarray, images: np.ndarray, labels: Sequence[str], step: int
    ) -> None:
        """Where the model puts a few images.

        Args:
            name: of the sample, e.g. ``sample``.
            vectors: (N, D) float32.
            images: (N, side, side, 3) uint8, what the vectors are of.
            labels: N names of classes; empty where none are known.
            step: finished steps.
        """

    def file(self, path: Path) -> None:
        """A file of the run has been written that may be of use beside its figures."""

    def sync(self) -> None:
        """Before a checkpoint: what was heard up to its step must not be lost any more."""

    def close(self, results: Mapping[str, Any] | None) -> None:
        """At the end of this process.

        Args:
            results: those of the whole training, as in ``summary.json``, JSON values; None if it
                ends early: it was stopped, or an error ends it.
        """
