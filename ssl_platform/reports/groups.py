"""What a sample of images shows: clusters, neighbours, and classes that are mixed up."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.ops.kmeans import spherical_kmeans
from ssl_platform.ops.knn import nearest_neighbours, weighted_votes
from ssl_platform.reports.sample import Sample

MOST_CLUSTERS = 24  # that are shown
NEAREST = 8  # images of a cluster, and neighbours of an image
QUERIES = 8  # images whose neighbours are shown
MOST_CLASSES = 30  # of a table of classes; of more, the pairs that are mixed up most
MOST_PAIRS = 20
VOTERS, TEMPERATURE = 20, 0.07  # of the kNN classifier, as the hook `knn` has them
IMAGES_PER_CLUSTER = 20  # of k-means, which chooses the number of clusters by it
KMEANS_ITERATIONS = 30


@dataclass(frozen=True, eq=False)
class SampleClusters:
    """The clusters of a sample of N images.

    Attributes:
        ids: (N,) the cluster of each image.
        order: the clusters with images, the largest first.
        sizes: (K,) images of each.
        nearest: (K, up to `NEAREST`) the images nearest to each, its own before others.
        is_kmeans: they are not the model's prototypes.
    """

    ids: np.ndarray
    order: list[int]
    sizes: np.ndarray
    nearest: np.ndarray
    is_kmeans: bool

    @property
    def shown(self) -> list[int]:
        """The clusters that are shown."""
        return self.order[:MOST_CLUSTERS]


def clusters_of(sample: Sample) -> SampleClusters | None:
    """By the model's prototypes, or by k-means of the features; None for too few images."""
    if sample.embeddings is not None and sample.prototypes is not None:
        return _nearest_to(sample.prototypes, sample.embeddings, is_kmeans=False)
    count = len(sample) // IMAGES_PER_CLUSTER
    if count < 2:
        return None
    features = F.normalize(sample.features, dim=1)
    with distributed.alone():  # only the first rank makes pages
        found = spherical_kmeans(
            features,
            num_clusters=min(count, MOST_CLUSTERS),
            num_iters=KMEANS_ITERATIONS,
            generator=torch.Generator().manual_seed(0),
        )
    return _nearest_to(found.centroids, features, is_kmeans=True)


def _nearest_to(centres: Tensor, rows: Tensor, *, is_kmeans: bool) -> SampleClusters:
    cosines = rows @ centres.T
    ids = cosines.argmax(dim=1).numpy()
    sizes = np.bincount(ids, minlength=len(centres))
    return SampleClusters(
        ids=ids,
        order=np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist(),
        sizes=sizes,
        nearest=_own_first(cosines, ids),
        is_kmeans=is_kmeans,
    )


def _own_first(cosines: Tensor, ids: np.ndarray) -> np.ndarray:
    """(K, up to `NEAREST`) the nearest of a cluster's own images, then the nearest of others."""
    own = F.one_hot(torch.from_numpy(ids), cosines.shape[1])
    return (cosines + 3 * own).topk(min(NEAREST, len(cosines)), dim=0).indices.T.numpy()


def purest_class(sample: Sample, rows: np.ndarray) -> tuple[str, float] | None:
    """The commonest class of some images and its share of those with one; None without any."""
    labels = sample.labels[rows]
    labels = labels[labels >= 0]
    if not sample.is_labelled or not len(labels):
        return None
    counts = np.bincount(labels)
    return sample.classes[int(counts.argmax())], float(counts.max() / len(labels))


def neighbours_of(sample: Sample) -> list[tuple[int, list[tuple[int, float]]]]:
    """Some images, of as many classes as there are, with their nearest others and the cosines."""
    if len(sample) < 2:
        return []
    queries = _queries(sample)
    cosines, places = _without_itself(sample.features, torch.tensor(queries), NEAREST)
    pairs = zip(places.tolist(), cosines.tolist(), strict=True)
    return [
        (query, list(zip(*pair, strict=True))) for query, pair in zip(queries, pairs, strict=True)
    ]


def _queries(sample: Sample) -> list[int]:
    order = np.random.default_rng(0).permutation(len(sample))
    _, firsts = np.unique(sample.labels[order], return_index=True)
    others = np.setdiff1d(np.arange(len(order)), firsts)
    return order[np.concatenate([np.sort(firsts), others])][:QUERIES].tolist()


def _without_itself(features: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(N, k) cosines and places of the nearest other rows of some rows."""
    k = min(k, len(features) - 1)
    cosines, places = nearest_neighbours(features[queries], features, k=k + 1)
    # the last place for itself, wherever it was: images that are equal may come before it
    order = (places == queries[:, None]).byte().argsort(dim=1, stable=True)[:, :k]
    return cosines.gather(1, order), places.gather(1, order)


def confusion_of(sample: Sample) -> dict[str, Any] | None:
    """Which classes the labelled images of a sample are taken for by their nearest others.

    Returns:
        ``accuracy`` (share), ``images``, ``classes`` and ``table`` (share of each true class, a row
        each) where the classes are few, else ``pairs`` (true class, other class, images); None
        where there are not two classes.
    """
    rows = torch.from_numpy(np.flatnonzero(sample.labels >= 0))
    if not sample.is_labelled or len(rows) < 3:
        return None
    numbers = sorted(sample.classes)
    place = {number: index for index, number in enumerate(numbers)}
    targets = torch.tensor([place[number] for number in sample.labels[rows].tolist()])
    cosines, places = _without_itself(sample.features[rows], torch.arange(len(rows)), VOTERS)
    votes = weighted_votes(
        cosines, targets[places], temperature=TEMPERATURE, num_classes=len(numbers)
    )
    counts = np.zeros((len(numbers), len(numbers)), int)
    np.add.at(counts, (targets.numpy(), votes.argmax(dim=1).numpy()), 1)
    names = [sample.classes[number] for number in numbers]
    found: dict[str, Any] = {"accuracy": counts.trace() / counts.sum(), "images": len(rows)}
    if len(numbers) <= MOST_CLASSES:
        shares = counts / counts.sum(axis=1, keepdims=True)
        return found | {"classes": names, "table": shares.tolist(), "counts": counts.tolist()}
    np.fill_diagonal(counts, 0)
    worst = np.argsort(-counts, axis=None, kind="stable")[:MOST_PAIRS]
    places_of = [divmod(int(flat), len(numbers)) for flat in worst]
    pairs = [(names[a], names[b], int(counts[a, b])) for a, b in places_of if counts[a, b]]
    return found | {"num_classes": len(numbers), "pairs": pairs}
