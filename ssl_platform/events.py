"""The seven moments of a run. A loss or a hook may act at any of them; by default it does not.

``run.epoch`` and ``run.step`` count what is finished: both are 0 when training starts, and
``on_step_end`` of the first step sees ``run.step == 1``. What depends on how far the training is
goes by ``run.position``: a run that goes on with another batch continues there where it was.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_platform.data.dataset import ImageDataset
    from ssl_platform.engine import Run
    from ssl_platform.losses.base import Loss
    from ssl_platform.models import SSLModel


class Events:
    """Listener to all seven moments.

    A listener that adds something up over several steps gives it out by ``state_dict`` and takes it
    back by ``load_state_dict``, so that a run that is resumed in the middle of an epoch ends as an
    unbroken one. The names are those of `torch.nn.Module`: a loss has both already.

    Attributes:
        comes_last: true for a hook that tells what the other hooks have found; it hears after them.
    """

    comes_last = False

    def probe(self, train: "ImageDataset", val: "ImageDataset | None") -> None:
        """Find out before a run that these images are of no use to it.

        Raises:
            ValueError: why; the message begins with the key.
        """

    def probe_model(self, model: "SSLModel", loss: "Loss") -> None:
        """Find out before a run that a hook is of no use to it; called in each check of a config.

        Args:
            model: as the run will have it, on torch's meta device.
            loss: likewise.

        Raises:
            ValueError: each line of the message begins with the option at fault.
        """

    def on_train_start(self, run: "Run") -> None:
        """After resuming, before the first epoch of this process."""

    def on_epoch_start(self, run: "Run") -> None:
        """Before the first batch of an epoch, the model in train mode.

        When a run is resumed in the middle of an epoch, a listener that has a state does not hear
        it again; one that has none does, with ``run.epoch_images > 0``.
        """

    def on_backward_end(self, run: "Run") -> None:
        """Gradients are averaged over ranks and not yet used."""

    def on_step_end(self, run: "Run") -> None:
        """The parameters are updated; ``run.losses`` and ``run.outputs`` are of this step."""

    def on_epoch_end(self, run: "Run") -> None:
        """After the last batch of an epoch, before its checkpoint is written."""

    def on_save_start(self, run: "Run") -> None:
        """Before a checkpoint is written, on all ranks; to raise is to prevent it."""

    def on_train_end(self, run: "Run") -> None:
        """After the last checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What this rank has to remember: tensors and plain values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take back what ``state_dict`` gave, before ``on_train_start``; tensors on the device.

        Where the number of ranks has changed, every rank is given the state of the first.
        """
