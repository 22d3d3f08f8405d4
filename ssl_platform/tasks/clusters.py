"""Which cluster does each image belong to? Tables, links and pictures of any run's clusters."""

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from ssl_platform import distributed
from ssl_platform.clusters.nearest import Clusters, find_nearest
from ssl_platform.clusters.output import ClusterOutput
from ssl_platform.config.options import JobOptions, Whose
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.look import describe, look
from ssl_platform.data.sets.image_folder import ImageFiles, ImageFolder
from ssl_platform.data.sets.list_file import ListFile
from ssl_platform.engine.build import eval_loader, open_dataset, resolve_device
from ssl_platform.models.heads import PrototypeHead, prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import DATASETS, TASKS, TRANSFORMS
from ssl_platform.tasks import Task
from ssl_platform.zoo.trained_run import TrainedRun
from ssl_platform.zoo.weights import ZOO


@dataclass(frozen=True)
class ImagesOptions:
    """Whose clusters are asked for: the images at ``path``, or else those of the run."""

    path: str | None
    split: Literal["train", "val"]
    num_workers: int
    eval_batch_size: Annotated[int, Ge(1), "e.g. 256"] = 256


@dataclass(frozen=True)
class ClustersOptions(JobOptions):
    """Top-level keys of this job."""

    checkpoint: str
    data: ImagesOptions
    weights: Whose | None = None


@TASKS.register()
class FindClusters(Task):
    """The nearest prototype of each image by the trained model in eval mode, on its centre crop.

    The id of an image does not depend on what else is asked for.

    Args:
        head: name of the `PrototypeHead`; null for the only one.
        symlinks, images_per_sheet, thumbnail_side: see `ClusterOutput`.
    """

    options = ClustersOptions

    def __init__(
        self, *, head: str | None, symlinks: bool, images_per_sheet: int, thumbnail_side: int
    ):
        self.head, self.output = head, ClusterOutput(symlinks, images_per_sheet, thumbnail_side)

    def probe(self, options: ClustersOptions) -> None:
        """See `Task`: opens the run, its head and the images."""
        if options.data.num_workers < 0:
            raise ValueError(f"data.num_workers={options.data.num_workers}: 0 or more")
        run = _open_run(options.checkpoint)
        self._head_of(run.model(options.weights))
        _open_images(run, options.data).probe()

    def __call__(self, options: ClustersOptions) -> dict[str, Any]:
        """Find and write the clusters; returns the figures that ``summary.json`` holds."""
        run = _open_run(options.checkpoint)
        dataset = _open_images(run, options.data)
        if distributed.rank() == 0:
            print("\n".join(_about_images(run, dataset, options)), flush=True)
        clusters = self._find(run, dataset, options)
        whose = run.network(options.weights).whose
        folder, title = Path(options.output_dir), f"Clusters of {run.options.name}"
        title += f" ({whose})" if whose else ""
        return self.output.write(folder, dataset, clusters, title=title)

    def _head_of(self, model: SSLModel) -> PrototypeHead:
        """The head whose prototypes give the clusters."""
        if self.head is not None:
            try:
                return prototype_head(model, self.head)
            except ValueError as error:
                raise ValueError(f"task.{error}") from error
        heads = {name: h for name, h in model.heads.items() if isinstance(h, PrototypeHead)}
        if not heads:
            raise ValueError("checkpoint: none of its heads has prototypes, so it has no clusters")
        if len(heads) > 1:
            raise ValueError(
                f"task.head=null: several heads have prototypes, name one of {', '.join(heads)}"
            )
        return next(iter(heads.values()))

    def _find(self, run: TrainedRun, dataset: ImageDataset, options: ClustersOptions) -> Clusters:
        device = resolve_device(options.device)
        model = run.model(options.weights).to(device)
        # an image that cannot be read has no cluster; here that is no reason to stop
        data = replace(
            run.options.data,
            num_workers=options.data.num_workers,
            eval_batch_size=options.data.eval_batch_size,
            max_bad_fraction=1.0,
        )
        job = replace(run.options, data=data, launch=options.launch)
        loader = eval_loader(dataset, range(len(dataset)), job, device=device)
        clusters = find_nearest(model.trunk, self._head_of(model), loader, len(dataset))
        positions = _positions_in_training(run, dataset, options.data)
        if positions is None:
            return clusters
        training_ids = _training_ids(run, positions)
        return replace(clusters, seen=positions >= 0, training_ids=training_ids)


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
            name = (ListFile if is_list else ImageFolder).__name__
            return open_dataset({"name": name, "path": options.path}, data)
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
    """Lines about the images, as `look` finds them before the start for those of a config."""
    where = f"data.{options.data.split} of the run" if options.data.path is None else "data.path"
    sizes = TRANSFORMS.build(run.options.data.eval_transform).crop_sizes
    return describe(where, dataset, look(dataset, options.seed), crop_sizes=sizes)


def _positions_in_training(
    run: TrainedRun, dataset: ImageDataset, options: ImagesOptions
) -> np.ndarray | None:
    """(N,) position of each image in the run's training set, -1 for one that was not in it.

    None when the training images are no longer there, so that nobody can tell.
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
    known, wanted = _hashes(training), _hashes(dataset)
    order = np.argsort(known)
    places = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[places] == wanted, places, -1)


def _hashes(dataset: ImageFiles) -> np.ndarray:
    """(N,) int64, equal for the same file in this process: a million paths would be large."""
    real_folder = cache(os.path.realpath)
    paths = (os.path.split(dataset.files[index]) for index in range(len(dataset)))
    whole = (os.path.join(real_folder(folder), name) for folder, name in paths)
    return np.fromiter(map(hash, whole), np.int64, len(dataset))


def _training_ids(run: TrainedRun, positions: np.ndarray) -> np.ndarray | None:
    """(N, sets) labels that the training last used, -1 for none; None if it used no labels.

    Args:
        positions: (N,) of the images in the training set, -1 for others.
    """
    if run.assignments is None:
        return None
    labels = run.assignments.numpy().T
    known = (positions >= 0) & (positions < len(labels))
    ids = np.where(known[:, None], labels[np.where(known, positions, 0)], -1)
    return np.maximum(ids, -1).astype(np.int32)
