"""The clusters of images by weights that are not a run of this platform."""

from pathlib import Path
from typing import Any

from ssl_platform.clusters.nearest import find_nearest
from ssl_platform.clusters.output import ClusterOutput
from ssl_platform.engine.build import eval_loader, open_dataset, resolve_device
from ssl_platform.registry import TASKS
from ssl_platform.tasks.trunk import TrainedTrunk, TrunkOptions, TrunkTask, as_problem


@TASKS.register()
class FindClustersOfFile(TrunkTask):
    """The nearest prototype of each image of ``data.train``, as `FindClusters` finds it.

    The trunk and the head are those of the weights; ``data`` says how an image is prepared.

    Args:
        symlinks, images_per_sheet, thumbnail_side: see `ClusterOutput`.
    """

    options = TrunkOptions

    def __init__(self, *, symlinks: bool, images_per_sheet: int, thumbnail_side: int):
        self.output = ClusterOutput(symlinks, images_per_sheet, thumbnail_side)

    def probe(self, options: TrunkOptions) -> None:
        """See `Task`: opens the weights, which need prototypes."""
        with as_problem():
            TrainedTrunk.open(options).weights.prototype_head()

    def __call__(self, options: TrunkOptions) -> dict[str, Any]:
        """Find and write the clusters; returns the figures that ``summary.json`` holds."""
        device = resolve_device(options.device)
        trunk = TrainedTrunk.open(options)
        head = trunk.weights.prototype_head().to(device)
        dataset = open_dataset(options.data.train, options.data)
        loader = eval_loader(dataset, range(len(dataset)), options, device=device)
        clusters = find_nearest(trunk.module.to(device), head, loader, len(dataset))
        folder, title = Path(options.output_dir), f"Clusters of {trunk.weights.shown}"
        return self.output.write(folder, dataset, clusters, title=title)
