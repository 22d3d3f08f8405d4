"""k-nearest-neighbour accuracy of the trunk's features, and the baselines to compare it with."""

import json
import logging
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt

from ssl_platform import distributed
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.sets.classes import Match, match_classes, named
from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.baselines import Embed, LabelledFeatures, measure_baselines
from ssl_platform.evaluation.class_tables import Tables
from ssl_platform.evaluation.features import extract
from ssl_platform.hooks.files import write_or_warn, write_tables_or_warn
from ssl_platform.metrics import Measured, Metric, measured
from ssl_platform.metrics.accuracy import MeanClassAccuracy
from ssl_platform.metrics.fitness import UNEVEN
from ssl_platform.ops.knn import knn_votes
from ssl_platform.ops.sampling import draw_balanced, stratified_split
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)

OR_ALL = "or null for all"
QUERY_FRACTION = 0.2  # of each class, where bank and queries share one set and too few are left
MEAN_CLASS = "mean_class"


class _Images(NamedTuple):
    dataset: ImageDataset
    labels: np.ndarray  # (len(dataset),) int64, in the numbering of the bank
    positions: np.ndarray  # of the images that are used


@HOOKS.register()
class KNNMonitor(Events):
    """k-nearest-neighbour accuracy of the trunk's features, in eval mode, by cosine.

    The bank is a random draw of labelled training images, equally many per class. The queries are
    the validation images, whose classes are matched by name, or other training images where no
    class matches. If the training images have no labels of two classes, bank and queries are
    validation images. Before the first step the untrained trunk and raw pixels (minus the mean of
    the bank) are measured in the same way and written to ``baselines.json``. Figures of each class
    are files ``metrics/knn_*``. If no images have labels, the hook only says so. Where a class has
    at least twice as many queries as another, the mean accuracy of the classes stands beside top-1.

    Args:
        every_epochs: measure after every so many epochs; the last epoch is always measured.
        num_labels: size of the bank; null for all training images.
        num_queries: null for all validation images.
        k, temperature: neighbours and the temperature of their votes.
        seed: of the draws.
    """

    results = ("knn.trained.*",)

    def __init__(
        self,
        *,
        every_epochs: Annotated[int, Ge(1)],
        num_labels: Annotated[int, Ge(1), OR_ALL] | None,
        num_queries: Annotated[int, Ge(1), OR_ALL] | None,
        k: Annotated[int, Ge(1)],
        temperature: Annotated[float, Gt(0), "e.g. 0.07"],
        seed: Annotated[int, Ge(0)],
    ):
        self.every_epochs, self.k, self.temperature = every_epochs, k, temperature
        self.num_labels, self.num_queries, self.seed = num_labels, num_queries, seed
        self.is_possible = False
        self.latest: tuple[int, dict[str, float]] | None = None  # epoch, scores
        self.counts: dict[str, int] = {}  # of the images that could be read
        self.baselines: dict[str, dict[str, float]] | None = None
        self.tables: Tables = {}  # of the baselines: figures of each class
        self.metrics: dict[str, Metric] = {}  # of the run, and the mean class accuracy if needed

    def state_dict(self) -> dict[str, Any]:
        state = {"latest": self.latest, "baselines": self.baselines, "counts": self.counts}
        return state | ({"tables": self.tables} if self.tables else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.tables = state.get("tables", {})
        self.latest, self.baselines = state["latest"], state["baselines"]
        self.counts = state.get("counts", {})  # older runs did not keep them

    def on_train_start(self, run: Run) -> None:
        self.is_possible = self._choose_images(run)
        if not self.is_possible:
            return
        if run.step == 0:
            baselines = measure_baselines(
                lambda _, embed: self._features(run, embed),
                lambda bank, queries: self._scores(run, bank, queries),
                run.evaluated.trunk,
                pca_components=None,
            )
            self.baselines = {name: values.figures for name, values in baselines.items()}
            self.tables = {
                name: values.tables for name, values in baselines.items() if values.tables
            }
            if distributed.rank() == 0:
                content = json.dumps(self.baselines, indent=2) + "\n"
                path = run.output_dir / "baselines.json"
                if write_or_warn(path, content):
                    run.loggers.file(path)
        elif self.baselines is None:
            _log("no kNN baselines: they are measured before the first step of a run")
        run.results["knn"] = {
            "labels": len(self.bank.positions),
            "queries": len(self.queries.positions),
            "k": min(self.k, len(self.bank.positions)),
            **self._what_counts(),
            **({"evaluated": run.evaluate} if run.model.teacher is not None else {}),
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
        bank, queries = self._features(run, run.evaluated.trunk)
        self.counts = {"labels": len(bank.labels), "queries": len(queries.labels)}
        scores, tables = self._scores(run, bank, queries)
        self.latest = run.epoch, scores
        if tables and distributed.rank() == 0:
            by_features = _of_knn({"trained": tables, **self.tables})
            write_tables_or_warn(run.output_dir, by_features, self.bank.dataset, queries.labels)
        run.report |= {f"knn/{name}": score for name, score in scores.items()}

    def _choose_images(self, run: Run) -> bool:
        """Choose bank and queries; returns whether there are any."""
        train, val = run.train_data, run.val_data
        bank_set = next((s for s in (train, val) if s is not None and _has_two_classes(s)), None)
        if bank_set is None:
            _log("no kNN accuracy: no set of images has labels of two classes", logging.INFO)
            return False
        query_set, labels = bank_set, bank_set.labels
        assert labels is not None
        matched = None if val is None or val is bank_set else _matched_labels(train, val)
        if val is not None and matched is not None:
            query_set, labels = val, matched
        self._draw(bank_set, query_set, labels)
        self.metrics = dict(run.metrics)
        if self._is_uneven() and not self._balanced():
            self.metrics[MEAN_CLASS] = MeanClassAccuracy()
        if not len(self.queries.positions):
            _log("no kNN accuracy: no class has two images, one for the bank and one for a query")
        return len(self.queries.positions) > 0

    def _draw(self, bank_set: ImageDataset, query_set: ImageDataset, labels: np.ndarray) -> None:
        """Draw bank and queries from two sets, or from the same; ``labels`` are of the queries."""
        assert bank_set.labels is not None
        rng = np.random.default_rng(self.seed)
        self.num_classes = int(bank_set.labels.max()) + 1
        bank = draw_balanced(bank_set.labels, self.num_labels, rng)
        candidates = np.flatnonzero(labels >= 0)
        if query_set is bank_set:
            candidates = np.setdiff1d(candidates, bank)
            if _lacks_queries(labels, candidates):
                rest, _ = stratified_split(labels, QUERY_FRACTION, rng)
                bank = rest[draw_balanced(labels[rest], self.num_labels, rng)]
                candidates = np.setdiff1d(np.flatnonzero(labels >= 0), bank)
            candidates = candidates[np.isin(labels[candidates], labels[bank])]
        limit = min(self.num_queries or len(candidates), len(candidates))
        queries = np.sort(rng.choice(candidates, limit, replace=False))
        self.bank = _Images(bank_set, bank_set.labels, bank)
        self.queries = _Images(query_set, labels, queries)

    def _features(self, run: Run, embed: Embed) -> tuple[LabelledFeatures, LabelledFeatures]:
        return self._features_of(self.bank, run, embed), self._features_of(self.queries, run, embed)

    def _features_of(self, images: _Images, run: Run, embed: Embed) -> LabelledFeatures:
        loader = run.eval_loader(images.dataset, images.positions)
        features = extract(embed, loader, len(images.positions))
        labels = torch.from_numpy(images.labels[images.positions])
        return LabelledFeatures(*features.leave_out(labels, "images of the kNN accuracy"))

    def _scores(self, run: Run, bank: LabelledFeatures, queries: LabelledFeatures) -> Measured:
        votes = knn_votes(
            queries.features[:],
            bank.features,
            bank.labels,
            k=self.k,
            temperature=self.temperature,
            num_classes=self.num_classes,
        )
        return measured(self.metrics, votes, queries.labels)

    def _query_counts(self) -> np.ndarray:
        """Queries of each class that has any."""
        counts = np.bincount(self.queries.labels[self.queries.positions])
        return counts[counts > 0]

    def _is_uneven(self) -> bool:
        counts = self._query_counts()
        return len(counts) > 1 and counts.max() >= UNEVEN * counts.min()

    def _balanced(self) -> str | None:
        """The metric that is the mean accuracy of the classes, if there is one."""
        names = (name for name, m in self.metrics.items() if isinstance(m, MeanClassAccuracy))
        return next(names, None)

    def _what_counts(self) -> dict[str, Any]:
        """Where classes are uneven: the figure to judge by, and how many queries in equal classes
        would give the same error."""
        name = self._balanced()
        if name is None or not self._is_uneven():
            return {}
        counts = self._query_counts()
        return {"judged_by": name, "equal_queries": len(counts) ** 2 / float((1 / counts).sum())}


def _lacks_queries(labels: np.ndarray, candidates: np.ndarray) -> bool:
    """Whether a bank has taken more of a class than `stratified_split` would leave to it."""
    counts = np.bincount(labels[labels >= 0])
    left = np.bincount(labels[candidates], minlength=len(counts))
    return bool((left < np.clip(np.rint(QUERY_FRACTION * counts), 1, counts - 1)).any())


def _of_knn(tables: Tables) -> Tables:
    """The same by names that say what was measured; the hook ``evaluate`` has files there too."""
    return {
        what: {f"knn_{metric}": table for metric, table in by_metric.items()}
        for what, by_metric in tables.items()
    }


def _has_two_classes(dataset: ImageDataset) -> bool:
    labels = dataset.labels
    return labels is not None and len(np.unique(labels[labels >= 0])) >= 2


def _matched_labels(train: ImageDataset, val: ImageDataset) -> np.ndarray | None:
    """Labels of the validation images in the numbering of the training images; None if none is."""
    try:
        match = _match(train, val)
    except ValueError as error:
        _log(f"{error}; the kNN accuracy is of other training images")
        return None
    for note in match.notes:
        _log(f"kNN: {note}")
    if match.unknown:
        assert val.labels is not None
        left_out = np.count_nonzero((val.labels >= 0) & (match.labels < 0))
        _log(
            f"kNN: data.val: {left_out} images are of classes that data.train does not have "
            f"({named(match.unknown)}); they are left out"
        )
    return match.labels


def _match(train: ImageDataset, val: ImageDataset) -> Match:
    if val.labels is None or not (val.labels >= 0).any():
        raise ValueError("data.val: no image has a label")
    match = match_classes(train, val)
    if not (match.labels >= 0).any():
        raise ValueError(f"data.val: none of its classes ({named(match.unknown)}) is of data.train")
    return match


def _log(text: str, level: int = logging.WARNING) -> None:
    if distributed.rank() == 0:
        logger.log(level, text)
