"""The clusters of a sample as one picture, for loggers."""

import numpy as np

from ssl_platform.reports.groups import NEAREST
from ssl_platform.reports.pictures import grid
from ssl_platform.reports.sample_values import SampleView


def cluster_sheet(view: SampleView) -> np.ndarray | None:
    """(H, W, 3) uint8: a row for each cluster that is shown, its nearest images from the left.

    None where the sample has no clusters.
    """
    if view.clusters is None:
        return None
    images, rows = view.sample.thumbnails, []
    factor = max(1, 48 // max(images.shape[1:3]))  # small ones are enlarged
    for cluster in view.clusters.shown:
        row = images[view.clusters.nearest[cluster]].repeat(factor, 1).repeat(factor, 2)
        rows.append(grid(row, NEAREST, gap=2))
    return np.concatenate(rows)
