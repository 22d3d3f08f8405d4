"""What are the features worth? A kNN accuracy, with the baselines that give it meaning."""

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ssl_platform import distributed
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.sets.classes import match_classes, named
from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.baselines import Embed, LabelledFeatures, measure_baselines
from ssl_platform.evaluation.features import extract
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.metrics import measured
from ssl_platform.ops.knn import knn_votes
from ssl_platform.ops.sampling import draw_balanced, stratified_split
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)

LEFT_TO_ASK = 0.2  # of each class's images, where the bank would take all of them


class _Images(NamedTuple):
    dataset: ImageDataset
    labels: np.ndarray  # (len(dataset),) int64, in the numbering of the bank
    positions: np.ndarray  # those that are looked at


@HOOKS.register()
class KNNMonitor(Events):
    """k-nearest-neighbour accuracy of the trunk's features, in eval mode, by cosine.

    The bank is a draw of labelled training images, equally many per class; the queries are the
    validation images, their classes matched by name, or, where none can be matched, other training
    images. Where the training images have no labels of two classes, both are of the validation
    images. Before the first step the untrained trunk and raw pixels (centred on the bank's mean)
    are measured the same way and kept in ``baselines.json``. Does nothing but say so when no images
    have labels.

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
        self.counts: dict[str, int] = {}  # of the images that could be read
        self.baselines: dict[str, dict[str, float]] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self.latest, "baselines": self.baselines, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.latest, self.baselines = state["latest"], state["baselines"]
        self.counts = state.get("counts", {})  # older runs did not keep them

    def on_train_start(self, run: Run) -> None:
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
        run.results["knn"] = {
            "labels": len(self.bank.positions),
            "queries": len(self.queries.positions),
            "k": self.k,
            **(self.baselines or {}),
        }

    def on_epoch_end(self, run: Run) -> None:
        if self.is_possible and run.epoch % self.every_epochs == 0:
            self._measure_trunk(run)

    def on_train_end(self, run: Run) -> None:
        if self.is_possible:
            if self.latest is None or self.latest[0] != run.epoch:
                self._measure_trunk(run)
            assert self.latest is not None
            run.results["knn"] |= {**self.counts, "trained": self.latest[1]}

    def _measure_trunk(self, run: Run) -> None:
        bank, queries = self._features(run, run.model.trunk)
        self.counts = {"labels": len(bank.labels), "queries": len(queries.labels)}
        scores = self._scores(run, bank, queries)
        self.latest = run.epoch, scores
        run.report |= {f"knn/{name}": score for name, score in scores.items()}

    def _choose_images(self, run: Run) -> bool:
        train, val = run.train_data, run.val_data
        learned = next((s for s in (train, val) if s is not None and _has_two_classes(s)), None)
        if learned is None:
            _say("no kNN accuracy: no set of images has labels of two classes", logging.INFO)
            return False
        asked, labels = learned, learned.labels
        assert labels is not None
        matched = None if val is None or val is learned else _matched_labels(train, val)
        if val is not None and matched is not None:
            asked, labels = val, matched
        self._draw(learned, asked, labels)
        self.is_possible = len(self.queries.positions) > 0
        if not self.is_possible:
            _say("no kNN accuracy: no class has two images, one to learn from and one to ask of")
        return self.is_possible

    def _draw(self, learned: ImageDataset, asked: ImageDataset, labels: np.ndarray) -> None:
        """The bank of one set and the queries of another, or of the same; ``labels`` are theirs."""
        assert learned.labels is not None
        rng = np.random.default_rng(self.seed)
        self.num_classes = int(learned.labels.max()) + 1
        bank = draw_balanced(learned.labels, self.num_labels, rng)
        candidates = np.flatnonzero(labels >= 0)
        if asked is learned and len(bank) == len(candidates):
            bank, candidates = stratified_split(labels, LEFT_TO_ASK, rng)
        elif asked is learned:
            candidates = np.setdiff1d(candidates, bank)
        limit = min(self.num_queries or len(candidates), len(candidates))
        queries = np.sort(rng.choice(candidates, limit, replace=False))
        self.bank = _Images(learned, learned.labels, bank)
        self.queries = _Images(asked, labels, queries)

    def _features(self, run: Run, embed: Embed) -> tuple[LabelledFeatures, LabelledFeatures]:
        return self._labelled(run, embed, self.bank), self._labelled(run, embed, self.queries)

    def _labelled(self, run: Run, embed: Embed, images: _Images) -> LabelledFeatures:
        loader = run.eval_loader(images.dataset, images.positions)
        found = extract(embed, loader, len(images.positions))
        labels = torch.from_numpy(images.labels[images.positions])
        return LabelledFeatures(*found.leave_out(labels, "images of the kNN accuracy"))

    def _scores(
        self, run: Run, bank: LabelledFeatures, queries: LabelledFeatures
    ) -> dict[str, float]:
        votes = knn_votes(
            queries.features[:],
            bank.features,
            bank.labels,
            k=self.k,
            temperature=self.temperature,
            num_classes=self.num_classes,
        )
        return measured(run.metrics, votes, queries.labels)


def _has_two_classes(dataset: ImageDataset) -> bool:
    labels = dataset.labels
    return labels is not None and len(np.unique(labels[labels >= 0])) >= 2


def _matched_labels(train: ImageDataset, val: ImageDataset) -> np.ndarray | None:
    """Labels of the validation images in the numbering of the training images; None if none is."""
    if val.labels is None or not (val.labels >= 0).any():
        _say("data.val: no image has a label; the kNN accuracy is of other training images")
        return None
    try:
        found = match_classes(train, val)
    except ValueError as error:
        _say(f"{error}; the kNN accuracy is of other training images")
        return None
    if not (found.labels >= 0).any():
        _say(
            f"data.val: none of its classes ({named(found.unknown)}) is of data.train; the kNN "
            "accuracy is of other training images"
        )
        return None
    for note in found.notes:
        _say(f"kNN: {note}")
    if found.unknown:
        left_out = np.count_nonzero((val.labels >= 0) & (found.labels < 0))
        _say(
            f"kNN: data.val: {left_out} images are of classes that data.train does not have "
            f"({named(found.unknown)}); they are left out"
        )
    return found.labels


def _say(text: str, level: int = logging.WARNING) -> None:
    if distributed.rank() == 0:
        logger.log(level, text)
