"""Scores of the heads on the validation images."""

import logging
from collections.abc import Mapping
from math import inf
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.sets.classes import check_labelled, labels_to_test
from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.class_tables import Tables
from ssl_platform.evaluation.features import extract
from ssl_platform.hooks.files import write_tables_or_warn
from ssl_platform.metrics import Measured, measured
from ssl_platform.metrics.fitness import notes_on_metrics
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)


@HOOKS.register()
class Evaluate(Events):
    """Scores of every head on the labelled validation images, in eval mode and float32.

    Reported as ``val/<head>/<metric>``. The first figure decides which epoch is the best. Figures
    of each class are files in the folder ``metrics`` of the run.

    Args:
        protocol: name of the protocol.
        every_epochs: measure after every so many epochs; the last epoch is always measured.

    Attributes:
        last: scores of the last epoch that was measured, by head and metric; on rank 0.
        best: the same of the best epoch of each head, and its number as ``epoch``.
        tables: figures of each class, by ``<head> (last epoch)`` or ``(best epoch)`` and metric.
    """

    results = ("evaluation.best.*", "evaluation.last.*")

    def __init__(self, *, protocol: str, every_epochs: Annotated[int, Ge(1)]):
        self.protocol, self.every_epochs = protocol, every_epochs
        self.last: dict[str, dict[str, float]] = {}
        self.best: dict[str, dict[str, float]] = {}
        self.tables: Tables = {}

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"last": self.last, "best": self.best}
        return state | ({"tables": self.tables} if self.tables else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.last, self.best = state["last"], state["best"]
        self.tables = state.get("tables", {})

    def probe(self, train: ImageDataset, val: ImageDataset | None) -> None:
        if val is None:
            raise ValueError(
                "data.val: hooks.evaluate needs labelled validation images; set data.val.path=..."
            )
        check_labelled("val", val)
        if train.labels is not None:  # else the loss refuses them
            labels_to_test(train, val)

    def on_train_start(self, run: Run) -> None:
        assert run.val_data is not None
        self.labels = labels_to_test(run.train_data, run.val_data)
        labels, num_classes = torch.from_numpy(self.labels), run.train_data.num_classes
        for note in notes_on_metrics(run.metrics, labels, num_classes or 0, "data.val"):
            if distributed.rank() == 0:
                logger.info("%s", note)

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch % self.every_epochs and run.epoch != run.num_epochs:
            return
        measured_now, labels = self._measure(run)
        self.last = {head: values.figures for head, values in measured_now.items()}
        for head, (scores, tables) in measured_now.items():
            run.report |= {f"val/{head}/{name}": score for name, score in scores.items()}
            first = next(iter(scores))
            if head not in self.best or scores[first] > self.best[head].get(first, -inf):
                self.best[head] = {**scores, "epoch": float(run.epoch)}
                self._keep(head, "best", tables)
            self._keep(head, "last", tables)
        if self.tables and distributed.rank() == 0:
            write_tables_or_warn(run.output_dir, self.tables, run.train_data, labels)

    def _keep(self, head: str, which: str, tables: dict[str, Tensor]) -> None:
        if tables:
            self.tables[f"{head} ({which} epoch)"] = tables

    def on_train_end(self, run: Run) -> None:
        run.results["evaluation"] = {
            "protocol": self.protocol_of(run),
            "best": self.best,
            "last": self.last,
        }

    def protocol_of(self, run: Run) -> str:
        """The protocol with the number of epochs, the batch size and what is trained."""
        batch_size = run.train_loader.batch_size * distributed.world_size()
        trained = "frozen trunk" if run.model.freeze_trunk else "whole network"
        whose = "" if run.model.teacher is None else f", of the {run.evaluate}"
        return f"{self.protocol}: {run.num_epochs} epochs, batch {batch_size}, {trained}{whose}"

    def _measure(self, run: Run) -> tuple[dict[str, Measured], Tensor]:
        """What was measured by head, on rank 0, and the labels of the images."""
        assert run.val_data is not None
        positions = np.flatnonzero(self.labels >= 0)
        widths: dict[str, int] = {}

        def scores_of(images: Tensor) -> Tensor:
            outputs = run.evaluated([images])
            widths.update({name: scores.shape[1] for name, scores in outputs.items()})
            return torch.cat(list(outputs.values()), dim=1)

        run.model.eval()
        features = extract(scores_of, run.eval_loader(run.val_data, positions), len(positions))
        run.model.train()
        truth = torch.as_tensor(self.labels[positions], dtype=torch.long)
        scores, labels = features.leave_out(truth, "validation images")
        if distributed.rank() != 0:  # a rank without images does not know the widths of the heads
            return {}, labels
        by_head = scores.split(list(widths.values()), dim=1)
        return {
            head: measured(run.metrics, part, labels)
            for head, part in zip(widths, by_head, strict=True)
        }, labels
