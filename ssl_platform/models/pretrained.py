"""A trunk that knows where to find weights for itself."""

from abc import ABC, abstractmethod


class Pretrained(ABC):
    """A trunk whose option ``pretrained`` lets a training start from its own weights.

    A constructor draws the weights at random whatever the option says: an evaluation loads those of
    a checkpoint, a run that goes on has its own, and a baseline is to be random.
    """

    pretrained: bool

    @abstractmethod
    def load_pretrained(self) -> str:
        """Take the weights over; returns where they are from.

        Raises:
            ValueError: they cannot be had; the message begins with the option.
        """
