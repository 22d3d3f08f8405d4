"""The clusters of images: the prototype that is nearest to each."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.loading.loader import Loader
from ssl_platform.evaluation.features import extract
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.ops.arithmetic import full_float32

logger = logging.getLogger(__name__)

CLOSE_CALL = 1e-4  # of cosines; rounding in a batch and alone differs by less


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of N images by each of H sets of prototypes; set 0 is the first.

    Those of k-means are one set, of its centroids.
    """

    ids: np.ndarray  # (N, H) int32, the nearest prototype; -1 for an image that cannot be read
    scores: np.ndarray  # (N, H) float32, cosine of the embedding and that prototype; NaN for -1
    margins: np.ndarray  # (N, H) float32, score less that of the second nearest; NaN for -1
    num_clusters: list[int]  # of each set, 2 or more
    seen: np.ndarray | None = None  # (N,) bool, whether it was a training image; None: unknown
    training_ids: np.ndarray | None = None  # (N, H) int32, its last target in training, -1: none
    by: Literal["prototypes", "k-means"] = "prototypes"  # what the clusters are of

    def sizes(self, number: int) -> np.ndarray:
        """(K,) int64 numbers of images in the clusters of set ``number``."""
        ids = self.ids[:, number]
        return np.bincount(ids[ids >= 0], minlength=self.num_clusters[number])

    def name(self, number: int, cluster: int) -> str:
        """What a cluster's files and folders are called: ``0/0017``."""
        return f"{number}/{padded(cluster, self.num_clusters[number])}"


def padded(number: int, count: int) -> str:
    """``number`` with as many digits as the largest below ``count``."""
    return f"{number:0{len(str(count - 1))}d}"


def find_nearest(
    trunk: nn.Module, head: PrototypeHead, loader: Loader, num_images: int
) -> Clusters:
    """Find the nearest prototype of every image. Collective.

    An image whose embedding is not finite has no cluster, as one that cannot be read; a warning
    says how many there are.

    Args:
        trunk, head: on the loader's device, in eval mode. The prototypes are set to unit length.
        loader: from `eval_loader`, over all images in order.
    """
    if distributed.rank() == 0:
        logger.info("finding the clusters of %d images", num_images)
    head.normalize_prototypes()
    with full_float32():  # the error of TF32 is larger than CLOSE_CALL
        answers, readable = extract(
            lambda images: nearest_prototypes(trunk, head, images), loader, num_images
        )
    has_cluster = answers.isfinite().all(dim=1)
    num_lost = int((readable & ~has_cluster).sum())
    if num_lost and distributed.rank() == 0:
        logger.warning(
            "%d of %d images have no cluster: their embeddings are NaN or infinite",
            num_lost,
            num_images,
        )
    answers[~has_cluster] = math.nan
    ids, scores, margins = answers.unflatten(1, (3, -1)).unbind(dim=1)
    return Clusters(
        ids=ids.nan_to_num(nan=-1).int().numpy(),
        scores=scores.numpy(),
        margins=margins.numpy(),
        num_clusters=head.num_prototypes,
    )


@torch.no_grad()
def nearest_prototypes(trunk: nn.Module, head: PrototypeHead, images: Tensor) -> Tensor:
    """Nearest prototype of each image in every set, its cosine, and how far the next one is behind.

    An image whose decision is close is computed again alone: the order of the sums in a batch
    depends on its size, and the same image must always get the same answer.

    Args:
        trunk, head: in eval mode, the prototypes of unit length.
        images: (B, C, H, W).

    Returns:
        (B, 3 * sets): the sets' ids, then their cosines, then the margins.
    """

    def answer(images: Tensor) -> Tensor:
        embeddings = head.embed(trunk(images)).float()
        nearest = [best_two(prototypes(embeddings)) for prototypes in head.prototypes]
        return torch.stack(nearest, dim=2).flatten(1)

    answers = answer(images)
    margins = answers[:, 2 * len(head.prototypes) :]
    for row in (margins < CLOSE_CALL).any(dim=1).nonzero().flatten().tolist():
        answers[row] = answer(images[row : row + 1])[0]
    return answers


def best_two(scores: Tensor) -> Tensor:
    """(B, K) cosines to (B, 3): id of the highest, the lowest of equals, the cosine, its lead."""
    ids = scores.argmax(dim=1, keepdim=True)
    best = scores.gather(1, ids)
    second = scores.scatter(1, ids, -torch.inf).amax(dim=1, keepdim=True)
    return torch.cat([ids, best, best - second], dim=1)
