"""What a loss is: it turns outputs into losses, owns its method's state, and hears the events."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from ssl_platform.data.batch import Batch
from ssl_platform.events import Events
from ssl_platform.models.ssl_model import SSLModel


class Loss(nn.Module, Events):
    """Base of all losses. Subclasses are final.

    State rule: persistent buffers are equal on all ranks; a buffer registered with
    ``persistent=False`` belongs to its rank and is saved per rank. A loss has no parameters: what
    is learned lies in the model.

    Attributes:
        uniform_loss: the loss of a model that predicts every class or prototype equally, where that
            is a meaningful mark (ln K): a training that stays there has learned nothing.
    """

    uniform_loss: float | None = None

    @abstractmethod
    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, scalars; ``"loss"`` is minimised, the rest is logged."""
