"""What a page shows of a sample of images, as values for its template and its script."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ssl_platform.reports.groups import (
    SampleClusters,
    clusters_of,
    confusion_of,
    neighbours_of,
    purest_class,
)
from ssl_platform.reports.maps import maps_of
from ssl_platform.reports.pictures import sprite
from ssl_platform.reports.sample import Sample

TILE = 64  # pixels of a thumbnail's width on the page, about
OTHERS = 10  # the colour of all classes and clusters but the largest ones


@dataclass(frozen=True, eq=False)
class SampleView:
    """What a page shows of a sample."""

    sample: Sample
    clusters: SampleClusters | None
    maps: dict[str, np.ndarray]

    @classmethod
    def of(cls, sample: Sample, *, is_last: bool) -> "SampleView":
        """The clusters and maps; the last view of a training has all maps."""
        maps = maps_of(sample.features, with_neighbours=is_last)
        return cls(sample, clusters_of(sample), maps)

    @cached_property
    def values(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those for the template, and those for the script; of each look at the sample, once."""
        return _sample_values(self)


NOTHING: dict[str, Any] = {
    **dict.fromkeys(("sprite", "groups", "confusion")),
    "num_images": 0,
    "maps": [],
    "legends": {},
    "neighbours": [],
}


def _sample_values(view: SampleView) -> tuple[dict[str, Any], dict[str, Any]]:
    sample, clusters = view.sample, view.clusters
    sheet = sprite(sample.thumbnails)
    by_class = [sample.class_name(index) for index in range(len(sample))]
    ways: dict[str, list[str]] = {}
    orders: dict[str, list[str]] = {}
    if sample.is_labelled:
        ways["class"], orders["class"] = by_class, list(sample.classes.values())
    if clusters is not None:
        word = "cluster" if clusters.is_kmeans else "prototype"
        ways[word] = [f"{word} {cluster}" for cluster in clusters.ids.tolist()]
        orders[word] = [f"{word} {cluster}" for cluster in clusters.order]
    coloured = {way: _colours(names, orders[way]) for way, names in ways.items()}
    captions = [
        " · ".join(filter(None, [name, *(names[index] for names in ways.values())]))
        for index, name in enumerate(sample.names)
    ]
    values = {
        "sprite": sheet,
        "tile_width": sheet.width * max(1, round(TILE / sheet.width)),
        "is_small": sample.is_small,
        "num_images": len(sample),
        "captions": captions,
        "groups": None if clusters is None else _cards(sample, clusters),
        "maps": list(view.maps),
        "legends": {way: legend for way, (_, legend) in coloured.items()},
        "is_labelled": sample.is_labelled,
        "neighbours": _neighbours(sample),
        "confusion": confusion_of(sample),
    }
    return values, {
        "columns": sheet.columns,
        "captions": captions,
        "maps": {name: np.round(points, 4).tolist() for name, points in view.maps.items()},
        "colours": {way: slots for way, (slots, _) in coloured.items()},
    }


def _colours(names: list[str], ordered: Sequence[str]) -> tuple[list[int], list[dict[str, Any]]]:
    """The colour of each image, and a legend: the commonest names have one of their own.

    Args:
        names: of the images' classes or clusters; empty for none.
        ordered: all names, in the order of the legend.
    """
    counts = Counter(filter(None, names))
    common = {name for name, _ in counts.most_common(OTHERS)}
    shown = [name for name in ordered if name in common]
    slots = {name: slot for slot, name in enumerate(shown)}
    legend = [{"slot": slots[name], "name": name, "count": counts[name]} for name in shown]
    rest = sum(name not in slots for name in names)
    if rest:
        legend.append({"slot": OTHERS, "name": "others", "count": rest})
    return [slots.get(name, OTHERS) for name in names], legend


def _cards(sample: Sample, clusters: SampleClusters) -> dict[str, Any]:
    return {
        "is_kmeans": clusters.is_kmeans,
        "number": len(clusters.sizes),
        "used": len(clusters.order),
        "cards": [
            {
                "id": cluster,
                "size": int(clusters.sizes[cluster]),
                "purest": purest_class(sample, np.flatnonzero(clusters.ids == cluster)),
                "nearest": [
                    (index, bool(clusters.ids[index] == cluster))
                    for index in clusters.nearest[cluster].tolist()
                ],
            }
            for cluster in clusters.shown
        ],
    }


def _neighbours(sample: Sample) -> list[dict[str, Any]]:
    return [
        {
            "index": query,
            "class_name": sample.class_name(query),
            "nearest": [
                {"index": index, "cosine": cosine, "class_name": sample.class_name(index)}
                for index, cosine in nearest
            ],
        }
        for query, nearest in neighbours_of(sample)
    ]
