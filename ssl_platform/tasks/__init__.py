"""The base of all jobs."""

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
        """Values of keys that the config leaves to the weights or images that it names.

        Args:
            cfg: the config as plain values, not checked yet.

        Returns:
            Values by dotted key; none by default.

        Raises:
            ValueError: one line per problem, each beginning with its key.
        """
        return {}

    def probe(self, options: Any) -> None:  # noqa: B027 (a training is tried by the check itself)
        """Check, before anything starts, what the options lead to.

        Raises:
            ValueError: one line per problem, each beginning with its key.
        """

    @abstractmethod
    def __call__(self, options: Any) -> Any:
        """Do it; returns what `ssl_platform.run` returns.

        Args:
            options: an instance of the class in ``self.options``.
        """
