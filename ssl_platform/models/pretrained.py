"""A trunk that can fetch pretrained weights by itself."""

from abc import ABC, abstractmethod


class Pretrained(ABC):
    """A trunk whose option ``pretrained`` lets a training start from its own weights.

    The constructor always draws random weights: an evaluation loads those of a checkpoint, a
    resumed run has its own, and a baseline has to be random.
    """

    pretrained: bool

    @abstractmethod
    def load_pretrained(self) -> str:
        """Load the weights; returns where they are from.

        Raises:
            ValueError: they cannot be had; the message begins with the option.
        """
