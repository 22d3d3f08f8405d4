"""What a job does."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ssl_platform.build import JobOptions


class Task(ABC):
    """A job, done by all ranks together.

    Attributes:
        options: dataclass of the top-level keys that a config of this task has.
    """

    options: ClassVar[type[JobOptions]]

    def probe(self, options: Any) -> None:  # noqa: B027 (a training is tried by the check itself)
        """Find out before anything starts what cannot work.

        Raises:
            ValueError: one line per problem, each beginning with its key.
        """

    @abstractmethod
    def __call__(self, options: Any) -> Any:
        """Do it; returns what `ssl_platform.run` returns.

        Args:
            options: an instance of the class in ``self.options``.
        """
