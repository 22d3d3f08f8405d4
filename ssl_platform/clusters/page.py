"""A page that shows the clusters: what they look like, how large and how pure they are."""

from pathlib import Path
from typing import Any

import numpy as np

from ssl_platform.clusters.health import TrainingHealth
from ssl_platform.clusters.nearest import Clusters
from ssl_platform.clusters.page_data import class_names, data_of_set, write_names
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.reports import templates

LINKED = ("clusters.csv", "clusters.parquet", "by_cluster", "summary.json")


def write_page(
    folder: Path,
    dataset: ImageDataset,
    clusters: Clusters,
    summary: dict[str, Any],
    *,
    title: str,
    sheet_columns: int,
    training: TrainingHealth | None,
) -> None:
    """Write ``index.html``, after all ranks have written the sheets into ``folder``.

    The page loads nothing but the sheets, by relative paths, each when it is scrolled to, and
    ``names.js`` when somebody searches. It has links to the tables, ``by_cluster`` and
    ``summary.json`` where they exist.

    Args:
        summary: from ``summarize``.
        title: heading of the page, plain text.
        sheet_columns: thumbnails of a sheet side by side.
        training: of the run whose clusters they are; None for weights without a run.
    """
    write_names(folder, dataset, clusters)
    sets = range(len(clusters.num_clusters))
    data = [data_of_set(folder, dataset, clusters, number) for number in sets]
    values = {
        "title": title,
        "summary": summary,
        "training": training,
        "files": [name for name in LINKED if (folder / name).exists()],
        "empty": [np.flatnonzero(clusters.sizes(number) == 0).tolist() for number in sets],
        "data": {
            "columns": sheet_columns,
            "classes": class_names(dataset, data),
            "by": clusters.by,
            "sets": data,
        },
    }
    templates.write_page(folder / "index.html", "clusters/page.html", values)
