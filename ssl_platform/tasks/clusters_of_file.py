"""The clusters of images by weights that are not a run of this platform."""

from pathlib import Path
from typing import Any

from ssl_platform.clusters.files import Clusters
from ssl_platform.clusters.nearest import find_nearest
from ssl_platform.engine.build import eval_loader, open_dataset, resolve_device
from ssl_platform.registry import TASKS
from ssl_platform.tasks.clusters import ClusterOutput
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem


@TASKS.register()
class FindClustersOfFile(TrunkTask):
    """The nearest prototype of each image of ``data.train``, as `FindClusters` finds it.

    The weights tell the trunk and the head; how an image is prepared is told by ``data``.

    Args:
        symlinks, images_per_sheet, thumbnail_side: see `ClusterOutput`.
    """

    options = TrunkOptions

    def __init__(self, *, symlinks: bool, images_per_sheet: int, thumbnail_side: int):
        self.output = ClusterOutput(symlinks, images_per_sheet, thumbnail_side)

    def probe(self, options: TrunkOptions) -> None:
        with as_problem():
            TrainedTrunk.open(options).weights.prototype_head()

    def __call__(self, options: TrunkOptions) -> dict[str, Any]:
        """Find and write the clusters; returns the figures that ``summary.json`` holds."""
        device = resolve_device(options.device)
        trunk = TrainedTrunk.open(options)
        head = trunk.weights.prototype_head().to(device)
        head.normalize_prototypes()
        dataset = open_dataset(options.data.train, options.data)
        positions = range(len(dataset))
        loader = eval_loader(dataset, positions, options, device=device)
        ids, scores, margins = find_nearest(trunk.module.to(device), head, loader, len(dataset))
        clusters = Clusters(
            ids=ids,
            scores=scores,
            margins=margins,
            num_clusters=head.num_prototypes,
            seen=None,
            training_ids=None,
        )
        folder, title = Path(options.output_dir), f"Clusters of {options.checkpoint}"
        return self.output.write(folder, dataset, clusters, title=title)
