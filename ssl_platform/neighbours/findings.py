"""What the nearest neighbours of images say: near duplicates, outliers, probable label errors."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_platform.data.contract import read_image
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.ops.feature_table import Table
from ssl_platform.ops.label_errors import LabelVotes, label_votes
from ssl_platform.ops.near_duplicates import NearDuplicates, near_duplicates, pixel_cosines
from ssl_platform.ops.neighbours import Neighbours, distance_at, unusual_distances

# the limit of Iglewicz and Hoaglin for modified z-scores
DUPLICATE_DEVIATIONS = -3.5  # of the logarithm of the distance to the nearest image
# of that of thumbnails, whose distances are wider apart
PIXEL_DEVIATIONS = -3.0
COPY = 1e-5  # a distance up to it is rounding
OUTLIER_DEVIATIONS = 3.5  # of that of the mean distance to the k nearest


class LookAlikes(NamedTuple):
    """The nearest images of Q pictures."""

    pictures: ImageDataset
    cosines: np.ndarray  # (Q, k) float32, nearest first
    rows: np.ndarray  # (Q, k) int64, of the findings


@dataclass(frozen=True, eq=False)
class Findings:
    """About the M images whose features are known; rows of all arrays are these images."""

    images: np.ndarray  # (M,) int64, positions in the data set
    neighbours: Neighbours  # of the M rows among themselves, on the CPU
    distances: np.ndarray  # (M,) float32, mean of 1 - cosine to the nearest k
    deviations: np.ndarray  # (M,) float64, of these, see `unusual_distances`
    least_cosine: float  # of near duplicates, by features
    least_pixel_cosine: float  # and by thumbnails
    duplicates: NearDuplicates
    same_pixels: np.ndarray  # (P,) bool, of the pairs of near duplicates
    votes: LabelVotes | None  # None without labels of two classes

    @property
    def order_of_outliers(self) -> np.ndarray:
        """(M,) rows, the furthest from its neighbours first; ties in the order of the data set."""
        return np.argsort(-self.distances, kind="stable")

    @property
    def order_of_errors(self) -> np.ndarray:
        """Rows of probable label errors, the most suspicious first."""
        if self.votes is None:
            return np.zeros(0, np.int64)
        rows = np.flatnonzero(self.votes.is_error.numpy())
        return rows[np.argsort(self.votes.margin.numpy()[rows], kind="stable")]


def find(
    dataset: ImageDataset,
    images: np.ndarray,
    neighbours: Neighbours,
    thumbnails: Table,
    *,
    duplicate_cosine: float | None,
    duplicate_pixel_cosine: float | None,
    temperature: float,
) -> Findings:
    """Look at the neighbours of M images.

    Args:
        images: (M,) positions in the data set.
        neighbours: of the M rows among themselves.
        thumbnails: (M, ...) of the images, from `tiny_thumbnails`.
        duplicate_cosine: of features, from which on a pair is a near duplicate; None chooses it
            by the distances of all images to their nearest one.
        duplicate_pixel_cosine: of thumbnails, as the other one.
        temperature: of the votes on labels.
    """
    neighbours = Neighbours(*(part.cpu() for part in neighbours))
    distances = (1 - neighbours.cosines).clamp_min(0)
    pixels = pixel_cosines(thumbnails, neighbours.rows)
    least, least_pixel = duplicate_cosine, duplicate_pixel_cosine
    if least is None:
        least = 1 - _duplicate_distance(distances, DUPLICATE_DEVIATIONS)
    if least_pixel is None:
        least_pixel = 1 - _duplicate_distance(1 - pixels, PIXEL_DEVIATIONS)
    duplicates = near_duplicates(
        neighbours, pixels, least_cosine=least, least_pixel_cosine=least_pixel
    )
    mean = distances.mean(dim=1)
    return Findings(
        images=images,
        neighbours=neighbours,
        distances=mean.numpy(),
        deviations=unusual_distances(mean).numpy(),
        least_cosine=least,
        least_pixel_cosine=least_pixel,
        duplicates=duplicates,
        same_pixels=_same_pixels(dataset, images, duplicates),
        votes=_votes(dataset, images, neighbours, duplicates, temperature),
    )


def _duplicate_distance(distances: Tensor, deviations: float) -> float:
    """Up to which distance two images are near duplicates.

    Args:
        distances: (M, k) of each image to its neighbours; copies are left out, so that the usual
            distance of a set of pairs of copies is not 0.
        deviations: from the usual distance to the nearest, see `unusual_distances`.
    """
    nearest = distances.masked_fill(distances <= COPY, torch.inf).amin(dim=1)
    nearest = nearest[nearest.isfinite()]
    return max(COPY, distance_at(nearest, deviations)) if len(nearest) else COPY


def _same_pixels(
    dataset: ImageDataset, images: np.ndarray, duplicates: NearDuplicates
) -> np.ndarray:
    """(P,) whether both images of a pair are equal in shape and every pixel; reads them again."""
    rows = np.unique(duplicates.pairs).tolist()
    digests = {row: _digest(dataset, int(images[row])) for row in rows}
    same = [
        digests[first] == digests[second] is not None for first, second in duplicates.pairs.tolist()
    ]
    return np.array(same, bool)


def _digest(dataset: ImageDataset, index: int) -> bytes | None:
    """Of the shape and the pixels of an image; None where it cannot be read any more."""
    try:
        pixels = read_image(dataset, index)
    except UnreadableImage:
        return None
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _votes(
    dataset: ImageDataset,
    images: np.ndarray,
    neighbours: Neighbours,
    duplicates: NearDuplicates,
    temperature: float,
) -> LabelVotes | None:
    if dataset.labels is None:
        return None
    labels = np.maximum(dataset.labels[images], -1)
    if len(np.unique(labels[labels >= 0])) < 2:
        return None
    return label_votes(
        neighbours,
        torch.from_numpy(labels),
        groups=torch.from_numpy(duplicates.groups),
        num_classes=int(labels.max()) + 1,
        temperature=temperature,
    )
