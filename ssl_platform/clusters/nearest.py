"""The nearest prototypes of many images."""

import logging
import math

import numpy as np
import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.loading.loader import Loader
from ssl_platform.evaluation.features import extract
from ssl_platform.models.heads import PrototypeHead

logger = logging.getLogger(__name__)

CLOSE_CALL = 1e-4  # of cosines; rounding in a batch and alone differs by less


def find_nearest(
    trunk: nn.Module, head: PrototypeHead, loader: Loader, num_images: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest prototype of every image; -1 and NaN for one that cannot be read, or whose embedding
    is not finite, which a warning tells. Collective.

    Args:
        trunk, head: on the loader's device, in eval mode, the prototypes of unit length.
        loader: from `eval_loader`, over all images in order.

    Returns:
        (num_images, sets): ids int32, their cosines, and how far the next one is behind, float32.
    """
    if distributed.rank() == 0:
        logger.info("finding the clusters of %d images", num_images)
    # TF32 would err by more than CLOSE_CALL
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = extract(lambda images: nearest_prototypes(trunk, head, images), loader, num_images)
    is_finite = found.rows.isfinite().all(dim=1)
    num_lost = int((found.readable & ~is_finite).sum())
    if num_lost and distributed.rank() == 0:
        logger.warning(
            "%d of %d images have no cluster: their embeddings are NaN or infinite",
            num_lost,
            num_images,
        )
    bad = ~(found.readable & is_finite)
    ids, scores, margins = (
        values.masked_fill(bad[:, None], missing).numpy()
        for values, missing in zip(
            found.rows.unflatten(1, (3, -1)).unbind(dim=1), (-1, math.nan, math.nan), strict=True
        )
    )
    return ids.astype(np.int32), scores, margins


@torch.no_grad()
def nearest_prototypes(trunk: nn.Module, head: PrototypeHead, images: Tensor) -> Tensor:
    """Nearest prototype of each image in every set, its cosine, and how far the next one is behind.

    An image whose decision is close is looked at again alone: the order of the sums in a batch
    depends on its size, and the same image must always get the same answer.

    Args:
        trunk, head: in eval mode, the prototypes of unit length.
        images: (B, C, H, W).

    Returns:
        (B, 3 * sets): the sets' ids, then their cosines, then the margins.
    """

    def answer(images: Tensor) -> Tensor:
        embeddings = head.embed(trunk(images)).float()
        nearest = [_best_two(prototypes(embeddings)) for prototypes in head.prototypes]
        return torch.cat([torch.stack(column, dim=1) for column in zip(*nearest, strict=True)], 1)

    answers = answer(images)
    margins = answers[:, 2 * len(head.prototypes) :]
    for row in (margins < CLOSE_CALL).any(dim=1).nonzero().flatten().tolist():
        answers[row] = answer(images[row : row + 1])[0]
    return answers


def _best_two(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) id of the highest score, the lowest id of equals, the score, and its lead."""
    ids = scores.argmax(dim=1, keepdim=True)
    best = scores.gather(1, ids)
    second = scores.scatter(1, ids, -torch.inf).amax(dim=1)
    return ids[:, 0].to(scores.dtype), best[:, 0], best[:, 0] - second
