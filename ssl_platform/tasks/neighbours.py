"""Near duplicates, outliers, probable label errors and look-alikes among any images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.console.working import working
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.engine.build import eval_loader, open_dataset, resolve_device
from ssl_platform.evaluation.feature_cache import CacheOptions, FeatureCache, log_once
from ssl_platform.evaluation.features import extract
from ssl_platform.evaluation.labelled_images import LabelledImages
from ssl_platform.neighbours.findings import LookAlikes, find
from ssl_platform.neighbours.output import NeighbourOutput
from ssl_platform.neighbours.pictures import Pictures
from ssl_platform.ops.arithmetic import full_float32
from ssl_platform.ops.feature_table import Chosen, Table
from ssl_platform.ops.knn import nearest_neighbours
from ssl_platform.ops.near_duplicates import SIDE, tiny_thumbnails
from ssl_platform.ops.neighbours import Neighbours, expected_seconds, self_neighbours
from ssl_platform.ops.whitening import whitened, whitening
from ssl_platform.registry import TASKS
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem
from ssl_platform.zoo.trained_run import SavedRun

LeastCosine = Annotated[float, Interval(gt=-1, le=1), "e.g. 0.98, or null"] | None
LIKE_IMAGENET = {"name": "CenterCrop", "resize": 256, "size": 224}


@dataclass(frozen=True)
class NeighboursOptions(TrunkOptions):
    """Top-level keys of the task; see configs/task/neighbours.yaml."""

    query: list[str] | str | None
    cache: CacheOptions


@TASKS.register()
class FindNeighbours(TrunkTask):
    """Compare the features of all images of ``data.train`` with one another, and of ``query``.

    All ranks compute the features and share the comparison; the first one does the rest.

    Args:
        components: of the whitened features that are compared, at most; null compares the features
            as they are.
        k: neighbours of an image, which outliers, votes on labels and look-alikes go by.
        duplicate_cosine: of features, from which on two images are near duplicates; null chooses
            it.
        duplicate_pixel_cosine: of thumbnails, likewise.
        temperature: a vote weighs exp(cosine / temperature).
        listed, shown, thumbnail_side: see `NeighbourOutput`.
    """

    options = NeighboursOptions

    def __init__(
        self,
        *,
        components: Annotated[int, Ge(2), "e.g. 128, or null for the features as they are"] | None,
        k: Annotated[int, Ge(1), "e.g. 20"],
        duplicate_cosine: LeastCosine,
        duplicate_pixel_cosine: LeastCosine,
        temperature: Annotated[float, Gt(0), "e.g. 0.07"],
        listed: Annotated[int, Ge(1), "e.g. 1000"],
        shown: Annotated[int, Ge(1), "e.g. 100"],
        thumbnail_side: int,
    ):
        self.components = components
        self.k, self.temperature = k, temperature
        self.limits = {
            "duplicate_cosine": duplicate_cosine,
            "duplicate_pixel_cosine": duplicate_pixel_cosine,
        }
        self.output = NeighbourOutput(listed, shown, thumbnail_side)

    def complete(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """As `TrunkTask`; ``data.eval_transform: null`` is the run's, or ImageNet's for a file."""
        completed, data = super().complete(cfg), cfg.get("data")
        if isinstance(data, Mapping) and data.get("eval_transform") is None:
            completed["data.eval_transform"] = _transform_of(cfg["checkpoint"])
        return completed

    def probe(self, options: NeighboursOptions) -> None:
        with as_problem():
            TrainedTrunk.open(options)
        if len(open_dataset(options.data.train, options.data)) < 2:
            raise ValueError("data.train: one image alone has no neighbours")
        pictures = _pictures(options)
        if pictures is not None:
            pictures.probe()

    def __call__(self, options: NeighboursOptions) -> dict[str, Any] | None:
        """Compare and write; returns what ``summary.json`` holds on rank 0, else None."""
        device = resolve_device(options.device)
        trunk = TrainedTrunk.open(options)
        trunk.module.to(device)
        dataset = open_dataset(options.data.train, options.data)
        images, features, thumbnails = _features(trunk, dataset, options, device)
        pictures = _pictures(options)
        asked = None if pictures is None else _embed(trunk, pictures, options, device)
        table: Table = features
        if self.components is not None:
            whiten = whitening(features, self.components)
            table = whitened(features, whiten)
            asked = None if asked is None else whiten(asked)
        neighbours = _compare(table, self.k, device)
        if distributed.rank() != 0:
            return None
        findings = find(
            dataset,
            images,
            neighbours,
            thumbnails,
            temperature=self.temperature,
            **self.limits,
        )
        look_alikes = None
        if pictures is not None and asked is not None:
            cosines, rows = nearest_neighbours(asked.to(device), table, k=self.k)
            look_alikes = LookAlikes(pictures, cosines.cpu().numpy(), rows.cpu().numpy())
        title = f"Neighbours by {trunk.weights.shown}"
        folder, source = Path(options.output_dir), Path(options.checkpoint)
        run = source if source.is_dir() else None
        return self.output.write(folder, dataset, findings, look_alikes, title=title, run=run)


def _transform_of(checkpoint: str) -> dict[str, Any]:
    """How a run prepares the images that it evaluates on; of other weights, as ImageNet's."""
    if not Path(checkpoint).is_dir():
        return LIKE_IMAGENET
    transform: dict[str, Any] = SavedRun.open(checkpoint).config["data"]["eval_transform"]
    return transform


def _pictures(options: NeighboursOptions) -> Pictures | None:
    asked = [options.query] if isinstance(options.query, str) else options.query
    if not asked:
        return None
    pictures = Pictures(asked)
    pictures.pixels = options.data.pixels
    return pictures


def _features(
    trunk: TrainedTrunk,
    dataset: ImageDataset,
    options: NeighboursOptions,
    device: torch.device,
) -> tuple[np.ndarray, Chosen, Chosen]:
    """(M,) positions of the images that can be read, their features and thumbnails; collective."""
    positions = np.arange(len(dataset))
    labels = np.full(len(dataset), -1) if dataset.labels is None else dataset.labels
    every = LabelledImages("all", options.data.train, dataset, positions, labels)

    def embed(images: Tensor) -> Tensor:
        return torch.cat([trunk.module(images), tiny_thumbnails(images)], dim=1)

    identity = trunk.fingerprint | {"beside": f"thumbnails of {SIDE} x {SIDE}"}
    cache = FeatureCache(options.cache, options, device)
    files = cache.files(trunk.weights.shown, identity, embed, every)
    readable = np.setdiff1d(positions, files.unreadable)
    both, rows = torch.from_numpy(files.array("features")), torch.from_numpy(readable)
    width = both.shape[1] - dataset.channels * SIDE**2
    return readable, Chosen(both[:, :width], rows), Chosen(both[:, width:], rows)


def _embed(
    trunk: TrainedTrunk, pictures: Pictures, options: NeighboursOptions, device: torch.device
) -> Tensor:
    """(Q, D) features of the pictures that are asked for; collective."""
    data = replace(options.data, num_workers=0)
    job = replace(options, data=data)
    loader = eval_loader(pictures, range(len(pictures)), job, device=device)
    with full_float32():
        return extract(trunk.module, loader, len(pictures)).rows


def _compare(table: Table, k: int, device: torch.device) -> Neighbours:
    """The neighbours of all rows; collective. Says before how long it will take."""
    with full_float32():
        seconds = timedelta(seconds=round(expected_seconds(table, k=k, device=device)))
        log_once(f"comparing {len(table)} images with one another takes about {seconds}")
        with working("comparing", len(table)) as work:

            def done(rows: int) -> None:
                work.advance(rows * distributed.world_size())

            return self_neighbours(table, k=k, device=device, done=done)
