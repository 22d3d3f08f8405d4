"""What a job does."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ssl_platform.config.options import JobOptions


class Task(ABC):
    """A job, done by all ranks together.

    Attributes:
        options: dataclass of the top-level keys that a config of this task has.
    """

    options: ClassVar[type[JobOptions]]

    def complete(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """Values of top-level keys that the config leaves open to what it names; none by default.

        Args:
            cfg: the config as plain values, not checked yet.

        Raises:
            ValueError: they cannot be found out; one line per problem, each beginning with its key.
        """
        return {}

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
