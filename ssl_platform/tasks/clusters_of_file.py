"""The clusters of images by weights that are not a run of this platform."""

from pathlib import Path
from typing import Any

from ssl_platform.clusters.kmeans import find_by_kmeans
from ssl_platform.clusters.nearest import find_nearest
from ssl_platform.clusters.output import ClusterOutput
from ssl_platform.engine.build import eval_loader, open_dataset, resolve_device
from ssl_platform.errors import CheckpointError
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.registry import TASKS
from ssl_platform.tasks.clusters import OR_KMEANS, KMeansIters, NumClusters, check_num_clusters
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem
from ssl_platform.zoo.weights import Weights


@TASKS.register()
class FindClustersOfFile(TrunkTask):
    """The nearest prototype of each image of ``data.train``, as `FindClusters` finds it.

    The trunk and the head are those of the weights; ``data`` says how an image is prepared.

    Args:
        num_clusters, kmeans_iters: see `FindClusters`.
        symlinks, images_per_sheet, thumbnail_side: see `ClusterOutput`.
    """

    options = TrunkOptions

    def __init__(
        self,
        *,
        num_clusters: NumClusters,
        kmeans_iters: KMeansIters,
        symlinks: bool,
        images_per_sheet: int,
        thumbnail_side: int,
    ):
        self.num_clusters, self.kmeans_iters = num_clusters, kmeans_iters
        self.output = ClusterOutput(symlinks, images_per_sheet, thumbnail_side)

    def probe(self, options: TrunkOptions) -> None:
        """See `Task`: opens the weights, which need prototypes where there is no k-means."""
        with as_problem():
            weights = TrainedTrunk.open(options).weights
            if self.num_clusters is None:
                _head_of(weights)
        if self.num_clusters is not None:
            dataset = open_dataset(options.data.train, options.data)
            check_num_clusters(self.num_clusters, len(dataset))

    def __call__(self, options: TrunkOptions) -> dict[str, Any]:
        """Find and write the clusters; returns the figures that ``summary.json`` holds."""
        device = resolve_device(options.device)
        trunk = TrainedTrunk.open(options)
        dataset = open_dataset(options.data.train, options.data)
        loader = eval_loader(dataset, range(len(dataset)), options, device=device)
        module = trunk.module.to(device)
        if self.num_clusters is None:
            head = _head_of(trunk.weights).to(device)
            clusters = find_nearest(module, head, loader, len(dataset))
        else:
            clusters = find_by_kmeans(
                module,
                loader,
                len(dataset),
                num_clusters=self.num_clusters,
                num_iters=self.kmeans_iters,
                seed=options.seed,
            )
        folder, title = Path(options.output_dir), f"Clusters of {trunk.weights.shown}"
        return self.output.write(folder, dataset, clusters, title=title)


def _head_of(weights: Weights) -> PrototypeHead:
    """The head of some weights.

    Raises:
        CheckpointError: there is none; the message names the way without.
    """
    try:
        return weights.prototype_head()
    except CheckpointError as error:
        raise CheckpointError(f"{error}{OR_KMEANS}") from error
