"""A page that shows the clusters: what they look like, how large and how pure they are."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_platform.clusters.nearest import Clusters
from ssl_platform.clusters.summary import labels_of
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.files import replacing
from ssl_platform.ops.partitions import majority_classes

LINKED = ("clusters.csv", "clusters.parquet", "by_cluster", "summary.json")


def write_page(
    folder: Path, dataset: ImageDataset, clusters: Clusters, summary: dict[str, Any], *, title: str
) -> None:
    """Write ``index.html``, after all ranks have written the sheets into ``folder``.

    The page loads nothing but the sheets, by relative paths, each when it is scrolled to. It has
    links to the tables, ``by_cluster`` and ``summary.json`` where they exist.

    Args:
        summary: from ``summarize``.
        title: heading of the page, plain text.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    sets = range(len(clusters.num_clusters))
    page = templates.get_template("page.html").stream(
        title=title,
        summary=summary,
        files=[name for name in LINKED if (folder / name).exists()],
        empty=[np.flatnonzero(clusters.sizes(number) == 0).tolist() for number in sets],
        cards=[_cards(folder, dataset, clusters, number) for number in sets],
    )
    with replacing(folder / "index.html") as partial:
        page.dump(str(partial), encoding="utf-8")


def _cards(
    folder: Path, dataset: ImageDataset, clusters: Clusters, number: int
) -> list[dict[str, Any]]:
    """What the page shows of each cluster in use, the largest first."""
    ids, sizes = clusters.ids[:, number], clusters.sizes(number)
    assigned = ids >= 0
    totals = np.bincount(ids[assigned], clusters.scores[assigned, number], len(sizes))
    labels = labels_of(dataset)
    classes, shares = majority_classes(
        ids, np.full_like(ids, -1) if labels is None else labels, len(sizes)
    )
    return [
        {
            "id": cluster,
            "size": sizes[cluster],
            "score": totals[cluster] / sizes[cluster],
            "share": np.nan_to_num(shares[cluster]),
            "class_name": _class_name(dataset, int(classes[cluster])),
            **_files(folder, clusters.name(number, cluster)),
        }
        for cluster in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist()
    ]


def _class_name(dataset: ImageDataset, label: int) -> str | None:
    """None for the label -1, of a cluster without labelled images."""
    if label < 0:
        return None
    return f"class {label}" if dataset.classes is None else dataset.classes[label]


def _files(folder: Path, name: str) -> dict[str, Any]:
    """The paths of a cluster's links and sheet, None for what does not exist.

    The sides of the sheet, in pixels, keep the page from jumping when the picture arrives.
    """
    links, sheet = f"by_cluster/{name}/", f"sheets/{name}.jpg"
    files: dict[str, Any] = {"links": links if (folder / links).exists() else None, "sheet": None}
    if (folder / sheet).exists():
        with Image.open(folder / sheet) as image:
            files |= {"sheet": sheet, "width": image.width, "height": image.height}
    return files
