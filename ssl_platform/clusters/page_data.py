"""What the page knows of each cluster, as plain values that become JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_platform.clusters.nearest import Clusters
from ssl_platform.clusters.summary import labels_of
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.files import replacing
from ssl_platform.ops.partitions import commonest_classes

MOST_CLASSES = 3  # of a cluster, on its card and in the filter
NAMES = "names.js"


def data_of_set(
    folder: Path, dataset: ImageDataset, clusters: Clusters, number: int
) -> dict[str, Any]:
    """The clusters in use of one set, the largest first, in columns.

    Returns:
        ``clusters``, K; ``digits`` of a cluster's number in a file's name; ``links``, whether
        ``by_cluster`` has folders of this set; and lists of equal length: ``ids``, ``sizes``,
        ``scores`` (mean cosines), ``sheets`` (width and height in pixels, or 0 for no sheet),
        ``labelled`` (numbers of images) and ``classes`` (of each cluster the commonest ones and
        their numbers of images, in one flat list).
    """
    ids, sizes = clusters.ids[:, number], clusters.sizes(number)
    assigned = ids >= 0
    totals = np.bincount(ids[assigned], clusters.scores[assigned, number], len(sizes))
    labels = labels_of(dataset)
    labels = np.full_like(ids, -1) if labels is None else labels
    labelled = np.bincount(ids[assigned & (labels >= 0)], minlength=len(sizes))
    commonest = commonest_classes(ids, labels, len(sizes), most=MOST_CLASSES)
    used = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    return {
        "clusters": len(sizes),
        "digits": len(str(len(sizes) - 1)),
        "links": (folder / "by_cluster" / str(number)).is_dir(),
        "ids": used.tolist(),
        "sizes": sizes[used].tolist(),
        "scores": [round(score, 4) for score in (totals[used] / sizes[used]).tolist()],
        "sheets": [_sheet_size(folder, clusters.name(number, c)) for c in used.tolist()],
        "labelled": labelled[used].tolist(),
        "classes": [[value for pair in commonest[c] for value in pair] for c in used.tolist()],
    }


def _sheet_size(folder: Path, name: str) -> list[int] | int:
    """Width and height keep the page from jumping when a sheet arrives."""
    path = folder / "sheets" / f"{name}.jpg"
    if not path.exists():
        return 0
    with Image.open(path) as sheet:
        return list(sheet.size)


def class_names(dataset: ImageDataset, sets: list[dict[str, Any]]) -> dict[int, str]:
    """The names of the classes that are the commonest of any cluster."""
    found = {label for data in sets for pairs in data["classes"] for label in pairs[::2]}
    names = dataset.classes
    return {label: f"class {label}" if names is None else names[label] for label in sorted(found)}


def write_names(folder: Path, dataset: ImageDataset, clusters: Clusters) -> None:
    """Write ``names.js``: the name of every image, and the clusters that it is in.

    The page loads it when somebody searches: a page that is opened as a file may load a script,
    but no other data. Images lie in runs of one folder, which is written once: the call
    ``namesArrived({folders: [[folder, number of images], ...], names, ids: [of a set, ...]})``.
    """
    folders: list[tuple[str, int]] = []
    names = []
    for index in range(len(dataset)):
        head, slash, name = dataset.describe(index).rpartition("/")
        if folders and folders[-1][0] == head + slash:
            folders[-1] = head + slash, folders[-1][1] + 1
        else:
            folders.append((head + slash, 1))
        names.append(name)
    data = {"folders": folders, "names": names, "ids": clusters.ids.T.tolist()}
    with replacing(folder / NAMES) as partial:
        partial.write_text(f"namesArrived({json.dumps(data, separators=(',', ':'))});\n")
