"""Which cluster does each image belong to? Tables, links and pictures of any run's clusters."""

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from ssl_platform import distributed
from ssl_platform.clusters.kmeans import find_by_kmeans
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

OR_KMEANS = "; task.num_clusters=100 clusters its features by k-means"
NumClusters = Annotated[int, Ge(2), "e.g. 100, or null for the clusters of prototypes"] | None
KMeansIters = Annotated[int, Ge(1), "e.g. 20"]


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
        num_clusters: of k-means of the trunk's features, for a model without prototypes; null: the
            clusters are those of the prototypes.
        kmeans_iters: iterations of k-means.
        symlinks, images_per_sheet, thumbnail_side: see `ClusterOutput`.
    """

    options = ClustersOptions

    def __init__(
        self,
        *,
        head: str | None,
        num_clusters: NumClusters,
        kmeans_iters: KMeansIters,
        symlinks: bool,
        images_per_sheet: int,
        thumbnail_side: int,
    ):
        if num_clusters is not None and head is not None:
            raise ValueError(
                f"head={head}: task.num_clusters={num_clusters} clusters the trunk's features, not "
                "those of a head; leave one of the two out"
            )
        self.num_clusters, self.kmeans_iters = num_clusters, kmeans_iters
        self.head, self.output = head, ClusterOutput(symlinks, images_per_sheet, thumbnail_side)

    def probe(self, options: ClustersOptions) -> None:
        """See `Task`: opens the run, its head and the images."""
        if options.data.num_workers < 0:
            raise ValueError(f"data.num_workers={options.data.num_workers}: 0 or more")
        run = _open_run(options.checkpoint)
        model, dataset = run.model(options.weights), _open_images(run, options.data)
        dataset.probe()
        if self.num_clusters is None:
            self._head_of(model)
        else:
            check_num_clusters(self.num_clusters, len(dataset))

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
        run_folder = Path(options.checkpoint)
        return self.output.write(folder, dataset, clusters, title=title, run=run_folder)

    def _head_of(self, model: SSLModel) -> PrototypeHead:
        """The head whose prototypes give the clusters."""
        if self.head is not None:
            try:
                return prototype_head(model, self.head)
            except ValueError as error:
                raise ValueError(f"task.{error}") from error
        heads = {name: h for name, h in model.heads.items() if isinstance(h, PrototypeHead)}
        if not heads:
            raise ValueError(f"checkpoint: none of its heads has prototypes{OR_KMEANS}")
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
        if self.num_clusters is None:
            clusters = find_nearest(model.trunk, self._head_of(model), loader, len(dataset))
        else:
            clusters = find_by_kmeans(
                model.trunk,
                loader,
                len(dataset),
                num_clusters=self.num_clusters,
                num_iters=self.kmeans_iters,
                seed=options.seed,
            )
        positions = _positions_in_training(run, dataset, options.data)
        if positions is None:
            return clusters
        by_training = self.num_clusters is None
        training_ids = _training_ids(run, positions) if by_training else None
        return replace(clusters, seen=positions >= 0, training_ids=training_ids)


def check_num_clusters(num_clusters: int, num_images: int) -> None:
    """Raise unless k-means can find so many clusters of so many images.

    Raises:
        ValueError: there are fewer images.
    """
    if num_clusters > num_images:
        raise ValueError(f"task.num_clusters={num_clusters}: there are {num_images} images")


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
