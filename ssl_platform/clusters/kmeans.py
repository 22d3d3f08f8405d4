"""Clusters of a model without prototypes: k-means of its features."""

import logging
import math

import torch
import torch.nn.functional as F
from torch import nn

from ssl_platform import distributed
from ssl_platform.clusters.nearest import Clusters, best_two
from ssl_platform.console.working import working
from ssl_platform.data.loading.loader import Loader
from ssl_platform.errors import ConfigError
from ssl_platform.evaluation.features import extract
from ssl_platform.ops.arithmetic import full_float32
from ssl_platform.ops.kmeans import spherical_kmeans

logger = logging.getLogger(__name__)

BLOCK = 8192  # rows whose cosines are in memory at once


def find_by_kmeans(
    trunk: nn.Module,
    loader: Loader,
    num_images: int,
    *,
    num_clusters: int,
    num_iters: int,
    seed: int,
) -> Clusters:
    """Cluster the features of all images by their cosines. Collective.

    The first rank clusters all of them, so that any number of ranks finds the same clusters. The
    features of all images are in memory, 4 bytes a number.

    Args:
        trunk: on the loader's device, in eval mode.
        loader: from `eval_loader`, over all images in order.
        num_clusters: K.
        num_iters: of k-means.
        seed: of the images that are the first centroids.

    Raises:
        ConfigError: fewer than K images have features.
    """
    if distributed.rank() == 0:
        logger.info("computing the features of %d images for k-means", num_images)
    with full_float32():
        rows, _ = extract(trunk, loader, num_images)
        has_features = rows.isfinite().all(dim=1)
        units = F.normalize(rows[has_features], dim=1)
        if len(units) < num_clusters:
            raise ConfigError(
                [f"task.num_clusters={num_clusters}: only {len(units)} of these images can be read"]
            )
        own = units if distributed.rank() == 0 else units[:0]
        with working(f"k-means of {len(units):,} images"):
            centroids, _ = spherical_kmeans(
                own.to(loader.device),
                num_clusters=num_clusters,
                num_iters=num_iters,
                generator=torch.Generator().manual_seed(seed),
            )
        answers = torch.full((num_images, 3), math.nan)
        answers[has_features] = torch.cat(
            [best_two(part.to(centroids) @ centroids.T).cpu() for part in units.split(BLOCK)]
        )
    ids, scores, margins = answers.split(1, dim=1)
    return Clusters(
        ids=ids.nan_to_num(nan=-1).int().numpy(),
        scores=scores.numpy(),
        margins=margins.numpy(),
        num_clusters=[num_clusters],
        by="k-means",
    )
