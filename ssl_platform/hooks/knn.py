"""What are the features worth? A kNN accuracy, with the baselines that give it meaning."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssl_platform import distributed
from ssl_platform.baselines import Embed, LabelledFeatures, measure_baselines
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.events import Events
from ssl_platform.features import extract
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.ops.draws import draw_balanced
from ssl_platform.ops.knn import knn_votes
from ssl_platform.registry import HOOKS

if TYPE_CHECKING:
    from ssl_platform.engine import Run

logger = logging.getLogger(__name__)


@HOOKS.register()
class KNNMonitor(Events):
    """k-nearest-neighbour accuracy of the trunk's features, in eval mode, by cosine.

    The bank is a draw of labelled training images, equally many per class; the queries are the
    validation images or, where there are none, other training images. Before the first step the
    untrained trunk and raw pixels (centred on the bank's mean) are measured the same way and kept
    in ``baselines.json``. Does nothing but say so when the images have no labels.

    Args:
        every_epochs: measure after every so many epochs; the last epoch is always measured.
        num_labels: size of the bank; null for all training images.
        num_queries: null for all validation images.
        k, temperature: neighbours and the temperature of their votes.
        seed: of the draws.
    """

    def __init__(
        self,
        *,
        every_epochs: int,
        num_labels: int | None,
        num_queries: int | None,
        k: int,
        temperature: float,
        seed: int,
    ):
        problems = []
        if every_epochs < 1:
            problems.append(f"every_epochs={every_epochs}: at least 1")
        if k < 1:
            problems.append(f"k={k}: at least 1")
        for name, number in {"num_labels": num_labels, "num_queries": num_queries}.items():
            if number is not None and number < 1:
                problems.append(f"{name}={number}: at least 1, or null for all")
        if seed < 0:
            problems.append(f"seed={seed}: 0 or more")
        if temperature <= 0:
            problems.append(f"temperature={temperature}: must be positive, e.g. 0.07")
        if problems:
            raise ValueError("\n".join(problems))
        self.every_epochs, self.k, self.temperature = every_epochs, k, temperature
        self.num_labels, self.num_queries, self.seed = num_labels, num_queries, seed
        self.is_possible = False
        self.latest: tuple[int, dict[str, float]] | None = None  # epoch, scores
        self.baselines: dict[str, dict[str, float]] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self.latest, "baselines": self.baselines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.latest, self.baselines = state["latest"], state["baselines"]

    def on_train_start(self, run: "Run") -> None:
        if not self._choose_images(run):
            return
        if run.step == 0:
            self.baselines = measure_baselines(
                lambda _, embed: self._features(run, embed),
                lambda bank, queries: self._scores(run, bank, queries),
                run.model.trunk,
                pca_components=None,
            )
            if distributed.rank() == 0:
                told = json.dumps(self.baselines, indent=2) + "\n"
                write_or_warn(run.output_dir / "baselines.json", told)
        elif self.baselines is None and distributed.rank() == 0:
            logger.warning("no kNN baselines: they are measured before the first step of a run")
        run.results["knn"] = {"labels": len(self.bank), "k": self.k, **(self.baselines or {})}

    def on_epoch_end(self, run: "Run") -> None:
        if self.is_possible and run.epoch % self.every_epochs == 0:
            self._measure_trunk(run)

    def on_train_end(self, run: "Run") -> None:
        if self.is_possible:
            if self.latest is None or self.latest[0] != run.epoch:
                self._measure_trunk(run)
            assert self.latest is not None
            run.results["knn"]["trained"] = self.latest[1]

    def _measure_trunk(self, run: "Run") -> None:
        scores = self._scores(run, *self._features(run, run.model.trunk))
        self.latest = run.epoch, scores
        run.report |= {f"knn/{name}": score for name, score in scores.items()}

    def _choose_images(self, run: "Run") -> bool:
        labels = run.train_data.labels
        if labels is None or len(np.unique(labels[labels >= 0])) < 2:
            if distributed.rank() == 0:
                logger.info("no kNN accuracy: the training images have no labels of two classes")
            return False
        rng = np.random.default_rng(self.seed)
        self.num_classes = int(labels.max()) + 1
        self.bank = draw_balanced(labels, self.num_labels, rng)
        if run.val_data is not None and run.val_data.labels is not None:
            self.query_data: ImageDataset = run.val_data
            candidates = np.flatnonzero(run.val_data.labels >= 0)
        else:
            self.query_data = run.train_data
            candidates = np.setdiff1d(np.flatnonzero(labels >= 0), self.bank)
        limit = min(self.num_queries or len(candidates), len(candidates))
        self.queries = np.sort(rng.choice(candidates, limit, replace=False))
        if limit == 0:
            if distributed.rank() == 0:
                logger.info("no kNN accuracy: hooks.knn.num_labels takes all images, none is left")
            return False
        self.is_possible = True
        return True

    def _features(self, run: "Run", embed: Embed) -> tuple[LabelledFeatures, LabelledFeatures]:
        return (
            self._labelled(run, embed, run.train_data, self.bank),
            self._labelled(run, embed, self.query_data, self.queries),
        )

    def _labelled(
        self, run: "Run", embed: Embed, dataset: ImageDataset, positions: np.ndarray
    ) -> LabelledFeatures:
        assert dataset.labels is not None
        found = extract(embed, run.eval_loader(dataset, positions), len(positions))
        labels = torch.from_numpy(dataset.labels[positions])
        return LabelledFeatures(*found.leave_out(labels, "images of the kNN accuracy"))

    def _scores(
        self, run: "Run", bank: LabelledFeatures, queries: LabelledFeatures
    ) -> dict[str, float]:
        votes = knn_votes(
            queries.features[:],
            bank.features,
            bank.labels,
            k=self.k,
            temperature=self.temperature,
            num_classes=self.num_classes,
        )
        return {name: metric(votes, queries.labels) for name, metric in run.metrics.items()}
