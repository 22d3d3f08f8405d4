"""Which cluster does each image belong to? Tables, links and pictures of any run's clusters."""

import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssl_platform import distributed
from ssl_platform.clusters.files import (
    Clusters,
    summarize,
    write_sheets,
    write_symlinks,
    write_tables,
)
from ssl_platform.clusters.nearest import find_nearest
from ssl_platform.clusters.page import write_overview
from ssl_platform.config.options import JobOptions
from ssl_platform.console import legible
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.look import describe, look
from ssl_platform.data.sets.image_folder import ImageFiles, ImageFolder
from ssl_platform.data.sets.list_file import ListFile
from ssl_platform.engine.build import Builder, open_dataset, resolve_device
from ssl_platform.errors import ConfigError, DiskError
from ssl_platform.files import error_of_disk
from ssl_platform.models.heads import PrototypeHead, prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import DATASETS, TASKS, TRANSFORMS
from ssl_platform.tasks import Task
from ssl_platform.zoo.trained_run import TrainedRun
from ssl_platform.zoo.weights import ZOO

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagesOptions:
    path: str | None
    split: Literal["train", "val"]
    num_workers: int


@dataclass(frozen=True)
class ClustersOptions(JobOptions):
    checkpoint: str
    data: ImagesOptions


@TASKS.register()
class FindClusters(Task):
    """The nearest prototype of each image by the trained model in eval mode, on its centre crop.

    The id of an image does not depend on what else is asked for.

    Args:
        head: name of the `PrototypeHead`; null for the only one.
        symlinks: make folders of links.
        images_per_sheet, thumbnail_side: of the contact sheets; sides in pixels.
    """

    options = ClustersOptions

    def __init__(
        self, *, head: str | None, symlinks: bool, images_per_sheet: int, thumbnail_side: int
    ):
        self.head, self.output = head, ClusterOutput(symlinks, images_per_sheet, thumbnail_side)

    def probe(self, options: ClustersOptions) -> None:
        if options.data.num_workers < 0:
            raise ValueError(f"data.num_workers={options.data.num_workers}: 0 or more")
        run = _open_run(options.checkpoint)
        self._head_of(run.model())
        _open_images(run, options.data).probe()

    def __call__(self, options: ClustersOptions) -> dict[str, Any]:
        """Find and write the clusters; returns the figures that ``summary.json`` holds."""
        run = _open_run(options.checkpoint)
        dataset = _open_images(run, options.data)
        if distributed.rank() == 0:
            print("\n".join(_about_images(run, dataset, options)), flush=True)
        clusters = self._find(run, dataset, options)
        folder, title = Path(options.output_dir), f"Clusters of {run.options.name}"
        return self.output.write(folder, dataset, clusters, title=title)

    def _head_of(self, model: SSLModel) -> str:
        """Name of the head that gives the clusters."""
        if self.head is not None:
            try:
                prototype_head(model, self.head)
            except ValueError as error:
                raise ValueError(f"task.{error}") from error
            return self.head
        names = [name for name, head in model.heads.items() if isinstance(head, PrototypeHead)]
        if not names:
            raise ValueError("checkpoint: none of its heads has prototypes, so it has no clusters")
        if len(names) > 1:
            raise ValueError(
                f"task.head=null: several heads have prototypes, name one of {', '.join(names)}"
            )
        return names[0]

    def _find(self, run: TrainedRun, dataset: ImageDataset, options: ClustersOptions) -> Clusters:
        model = run.model().to(resolve_device(options.device))
        head = prototype_head(model, self._head_of(model))
        head.normalize_prototypes()
        # an image that cannot be read has no cluster; here that is no reason to stop
        data = replace(run.options.data, num_workers=options.data.num_workers, max_bad_fraction=1.0)
        builder = Builder(
            replace(run.options, data=data, device=options.device, launch=options.launch)
        )
        loader = builder.eval_loader(dataset, range(len(dataset)))
        ids, scores, margins = find_nearest(model.trunk, head, loader, len(dataset))
        positions = _positions_in_training(run, dataset, options.data)
        return Clusters(
            ids=ids,
            scores=scores,
            margins=margins,
            num_clusters=head.num_prototypes,
            seen=None if positions is None else positions >= 0,
            training_ids=_training_ids(run, positions),
        )


@dataclass(frozen=True)
class ClusterOutput:
    """What is written of clusters; sides in pixels."""

    symlinks: bool
    images_per_sheet: int
    thumbnail_side: int

    def __post_init__(self) -> None:
        if self.images_per_sheet < 1:
            raise ValueError(f"images_per_sheet={self.images_per_sheet}: at least 1")
        if self.thumbnail_side < 8:
            raise ValueError(f"thumbnail_side={self.thumbnail_side}: at least 8 pixels")

    def write(
        self, folder: Path, dataset: ImageDataset, clusters: Clusters, *, title: str
    ) -> dict[str, Any]:
        """Write every file; returns what ``summary.json`` holds.

        Raises:
            ConfigError: the folder cannot be written, or holds files of others.
            DiskError: the disk is full.
        """
        try:
            return self._write(folder, dataset, clusters, title)
        except OSError as error:
            problem = f"output_dir={folder}: cannot be written ({error})"
            if error_of_disk(error) is not None:
                raise DiskError(problem) from error
            raise ConfigError([problem]) from error
        except ValueError as error:
            raise ConfigError([str(error)]) from error

    def _write(
        self, folder: Path, dataset: ImageDataset, clusters: Clusters, title: str
    ) -> dict[str, Any]:
        rank, world_size = distributed.rank(), distributed.world_size()
        write_sheets(
            folder,
            dataset,
            clusters,
            images_per_sheet=self.images_per_sheet,
            thumbnail_side=self.thumbnail_side,
            rank=rank,
            world_size=world_size,
        )
        distributed.barrier()
        summary = summarize(dataset, clusters)
        if rank == 0:
            write_tables(folder, dataset, clusters)
            if self.symlinks and not write_symlinks(folder, dataset, clusters):
                logger.info("no folders of links: these images are not files of their own")
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            write_overview(folder, dataset, clusters, summary, title=title)  # links the others
            lines = ["", *_told(summary), f"look at {folder / 'index.html'}"]
            print(legible("\n".join(lines)), flush=True)
        return summary


def _open_run(checkpoint: str) -> TrainedRun:
    if "://" in checkpoint or checkpoint.startswith(ZOO) or Path(checkpoint).is_file():
        raise ValueError(
            f"checkpoint={checkpoint}: not the directory of a run; for the prototypes of other "
            "weights use config=analysis/clusters_of_file"
        )
    return TrainedRun.open(checkpoint)


def _open_images(run: TrainedRun, options: ImagesOptions) -> ImageDataset:
    """The images that are asked for.

    Raises:
        ValueError: they are not there; the message begins with a key of the config.
    """
    data = run.options.data
    if options.path is not None:
        try:
            is_list = os.path.isfile(os.path.expanduser(options.path))
            kind = ListFile if is_list else ImageFolder
            return open_dataset({"name": kind.__name__, "path": options.path}, data)
        except ValueError as error:
            raise ValueError(f"data.{error}") from error
    run.require(f"data.{options.split}")
    node = {"train": data.train, "val": data.val}[options.split]
    if node is None:
        raise ValueError(f"data.split={options.split}: the run has no such images; set data.path")
    try:
        return open_dataset(node, data)
    except ValueError as error:
        raise ValueError(
            f"data.path=null: the run's own images cannot be found ({error}); set data.path"
        ) from error


def _about_images(run: TrainedRun, dataset: ImageDataset, options: ClustersOptions) -> list[str]:
    """See `look`; the images are not in the config, which has been looked at before the start."""
    where = f"data.{options.data.split} of the run" if options.data.path is None else "data.path"
    crop_size = max(TRANSFORMS.build(run.options.data.eval_transform).crop_sizes)
    return describe(where, dataset, look(dataset, options.seed), crop_size=crop_size)


def _positions_in_training(
    run: TrainedRun, dataset: ImageDataset, options: ImagesOptions
) -> np.ndarray | None:
    """(N,) position of each image in the run's training set, -1 for one that was not in it.

    None when it cannot be found out, for the training images are no longer there.
    """
    train_node = run.options.data.train
    if options.path is None:
        is_training = options.split == "train" or run.options.data.val == train_node
        return np.arange(len(dataset)) if is_training else np.full(len(dataset), -1)
    try:
        training = DATASETS.build(train_node)
    except ValueError:
        return None
    if not isinstance(training, ImageFiles) or not isinstance(dataset, ImageFiles):
        return np.full(len(dataset), -1)
    known, wanted = _fingerprints(training), _fingerprints(dataset)
    order = np.argsort(known)
    places = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[places] == wanted, places, -1)


def _fingerprints(dataset: ImageFiles) -> np.ndarray:
    """(N,) uint64, equal for the same file; numbers, since a million paths would be large."""
    real_folder = cache(os.path.realpath)

    def fingerprint(path: bytes) -> int:
        folder, name = os.path.split(path)
        whole = os.path.join(real_folder(folder), name)
        return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")

    paths = (dataset.files[index] for index in range(len(dataset)))
    return np.fromiter(map(fingerprint, paths), np.uint64, len(dataset))


def _training_ids(run: TrainedRun, positions: np.ndarray | None) -> np.ndarray | None:
    """(N, sets) labels that the training last used, -1 for none."""
    if run.assignments is None or positions is None:
        return None
    labels = run.assignments.numpy().T
    known = (positions >= 0) & (positions < len(labels))
    found = np.where(known[:, None], labels[np.where(known, positions, 0)], -1)
    return np.maximum(found, -1).astype(np.int32)


def _told(summary: dict[str, Any]) -> list[str]:
    lines = [f"{summary['images']} images, {summary['unreadable']} unreadable"]
    for number, found in enumerate(summary["sets"]):
        line = (
            f"  set {number}: {found['used']} of {found['clusters']} clusters in use, "
            f"sizes {found['size_min']} to {found['size_max']}, median {found['size_median']:g}"
        )
        if "nmi" in found:
            line += (
                f"; NMI {found['nmi']:.3f}, ARI {found['ari']:.3f}, purity {found['purity']:.3f}, "
                f"Hungarian accuracy {found['hungarian_accuracy']:.3f}"
            )
        lines.append(line)
    return lines
