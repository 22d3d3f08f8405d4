"""Train a model: pretraining and every evaluation that trains."""

from typing import Any

from ssl_platform.build import Builder, TrainOptions
from ssl_platform.engine import train
from ssl_platform.registry import TASKS
from ssl_platform.tasks import Task


@TASKS.register()
class Train(Task):
    options = TrainOptions

    def __call__(self, options: TrainOptions) -> dict[str, Any]:
        """Run the training; returns what the hooks measured (``run.results``)."""
        return train(Builder(options).run())
