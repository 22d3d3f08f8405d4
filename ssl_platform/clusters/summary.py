"""The clusters in figures: sizes, scores, and how well they agree with classes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ssl_platform.clusters.nearest import Clusters
from ssl_platform.clusters.signs import signs_of
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.ops.entropy import entropy
from ssl_platform.ops.partitions import (
    adjusted_rand_index,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)

NUM_PERMUTATIONS, PERMUTATION_SEED = 5, 0
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "nmi": normalized_mutual_information,
    "ari": adjusted_rand_index,
    "purity": purity,
    "hungarian_accuracy": hungarian_accuracy,
}


def summarize(dataset: ImageDataset, clusters: Clusters) -> dict[str, Any]:
    """Sizes of the clusters and, with labels, how well they agree with the classes.

    Returns:
        ``clusters_by``, see `Clusters.by`; numbers of ``images``, ``unreadable``, ``seen`` if
        known, ``labelled`` if any is; and ``sets``, a dictionary for each: ``images`` that have a
        cluster, ``clusters``, ``used``, ``empty``, ``size_min``, ``size_median`` and ``size_max``
        of the used clusters, ``size_entropy`` over ln K (1: all equally large), ``mean_score``,
        ``median_margin``; if the training had targets ``training_agreement``, the share of them
        that equal the image's cluster; if any image is labelled ``nmi``, ``ari``, ``purity`` and
        ``hungarian_accuracy``, and the same under ``chance``, where the labels are permuted (mean
        of `NUM_PERMUTATIONS` times); and ``signs``, see `signs_of`.
    """
    labels = labels_of(dataset)
    summary: dict[str, Any] = {
        "clusters_by": clusters.by,
        "images": len(clusters.ids),
        "unreadable": int((clusters.ids[:, 0] < 0).sum()),
    }
    if clusters.seen is not None:
        summary["seen"] = int(clusters.seen.sum())
    if labels is not None:
        summary["labelled"] = int((labels >= 0).sum())
    sets = range(len(clusters.num_clusters))
    return summary | {"sets": [_summarize_set(clusters, number, labels) for number in sets]}


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The main figures of a summary, a line for each set of clusters, and its signs below it."""
    lines = [f"{summary['images']} images, {summary['unreadable']} unreadable"]
    for number, figures in enumerate(summary["sets"]):
        line = (
            f"  set {number}: {figures['used']} of {figures['clusters']} clusters in use, sizes "
            f"{figures['size_min']} to {figures['size_max']}, median {figures['size_median']:g}"
        )
        if "nmi" in figures:
            line += (
                f"; NMI {figures['nmi']:.3f}, ARI {figures['ari']:.3f}, purity "
                f"{figures['purity']:.3f}, Hungarian accuracy {figures['hungarian_accuracy']:.3f}"
            )
            by_chance = ", ".join(
                f"{round(figures['chance'][name], 3) + 0:.3f}" for name in MEASURES
            )
            line += f" (by chance {by_chance})"
        lines += [line, *(f"    {sign}" for sign in figures["signs"])]
    return lines


def labels_of(dataset: ImageDataset) -> np.ndarray | None:
    """(N,) classes; None when no image has one."""
    labels = dataset.labels
    return labels if labels is not None and (labels >= 0).any() else None


def _summarize_set(clusters: Clusters, number: int, labels: np.ndarray | None) -> dict[str, Any]:
    ids, num_clusters = clusters.ids[:, number], clusters.num_clusters[number]
    sizes = clusters.sizes(number)
    used = sizes[sizes > 0]
    figures: dict[str, Any] = {
        "images": int(sizes.sum()),
        "clusters": num_clusters,
        "used": len(used),
        "empty": num_clusters - len(used),
        "size_min": int(used.min()),
        "size_median": float(np.median(used)),
        "size_max": int(used.max()),
        "size_entropy": float(entropy(torch.from_numpy(sizes / sizes.sum())))
        / math.log(num_clusters),
        "mean_score": float(clusters.scores[ids >= 0, number].mean(dtype=np.float64)),
        "median_margin": float(np.median(clusters.margins[ids >= 0, number])),
    }
    if clusters.training_ids is not None:
        targets = clusters.training_ids[:, number]
        both = (targets >= 0) & (ids >= 0)
        if both.any():
            figures["training_agreement"] = float((targets == ids)[both].mean())
    if labels is not None:
        figures |= _agreement(ids, labels)
    return figures | {"signs": signs_of(figures)}


def _agreement(ids: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How well clusters agree with classes, and what the same figures are by chance."""
    both = (ids >= 0) & (labels >= 0)
    if not both.any():
        return {}
    ids, labels = ids[both], labels[both]
    rng = np.random.default_rng(PERMUTATION_SEED)
    permuted = [rng.permutation(labels) for _ in range(NUM_PERMUTATIONS)]
    chance = {
        name: float(np.mean([measure(ids, some) for some in permuted]))
        for name, measure in MEASURES.items()
    }
    return {name: measure(ids, labels) for name, measure in MEASURES.items()} | {"chance": chance}
