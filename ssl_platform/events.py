"""The six moments of a run. A loss or a hook may act at any of them; by default it does not.

``run.epoch`` and ``run.step`` count what is finished: both are 0 when training starts, and
``on_step_end`` of the first step sees ``run.step == 1``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_platform.engine import Run


class Events:
    """Listener to all six moments.

    Attributes:
        comes_last: true for a hook that tells what the other hooks have found; it hears after them.
    """

    comes_last = False

    def on_train_start(self, run: "Run") -> None:
        """After resuming, before the first epoch of this process."""

    def on_epoch_start(self, run: "Run") -> None:
        """Before the first batch of an epoch, the model in train mode."""

    def on_backward_end(self, run: "Run") -> None:
        """Gradients are averaged over ranks and not yet used."""

    def on_step_end(self, run: "Run") -> None:
        """The parameters are updated; ``run.losses`` and ``run.outputs`` are of this step."""

    def on_epoch_end(self, run: "Run") -> None:
        """After the last batch of an epoch, before the checkpoint is written."""

    def on_train_end(self, run: "Run") -> None:
        """After the last checkpoint."""
