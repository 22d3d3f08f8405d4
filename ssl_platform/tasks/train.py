"""Train a model: pretraining and every evaluation that trains."""

from typing import TYPE_CHECKING, Any

from ssl_platform.engine import train
from ssl_platform.registry import TASKS

if TYPE_CHECKING:
    from ssl_platform.build import Builder


@TASKS.register()
class Train:
    def __call__(self, builder: "Builder") -> dict[str, Any]:
        """Run the training; returns what the hooks measured (``run.results``)."""
        return train(builder.run())
