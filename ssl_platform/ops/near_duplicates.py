"""Pairs of rows that are so near that they are probably one image, and the groups they form."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.feature_table import Table
from ssl_platform.ops.neighbours import Neighbours

SIDE = 8  # of a thumbnail: small, so that compression and scaling leave it as it is
BLOCK = 2048  # rows that are compared with their neighbours at once
FLAT = 1e-2  # length of a thumbnail of one colour, whose differences are rounding


class NearDuplicates(NamedTuple):
    """Pairs of nearest neighbours that are near, and the groups that they connect."""

    pairs: np.ndarray  # (P, 2) int64 rows, the lower first, in order
    cosines: np.ndarray  # (P,) float32, of the features
    pixel_cosines: np.ndarray  # (P,) float32, of the thumbnails
    groups: np.ndarray  # (N,) int64, numbered by their first row; -1: in none


def tiny_thumbnails(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C * SIDE * SIDE): the means of parts of each image."""
    return F.adaptive_avg_pool2d(images, SIDE).flatten(1)


@torch.no_grad()
def pixel_cosines(thumbnails: Table, rows: Tensor) -> Tensor:
    """Cosines of each thumbnail and those of its neighbours, mirrored where that is nearer.

    The mean over all pixels is subtracted, so this is a correlation. A thumbnail of one colour
    has the cosine 0 to all.

    Args:
        thumbnails: (N, C * SIDE * SIDE) from `tiny_thumbnails`.
        rows: (N, k) int64 neighbours.

    Returns:
        (N, k) float32.
    """
    cosines = torch.empty(rows.shape)
    for start in range(0, len(rows), BLOCK):
        places = rows[start : start + BLOCK]
        own = thumbnails[start : start + BLOCK].float()
        mirrored = own.unflatten(1, (-1, SIDE, SIDE)).flip(3).flatten(1)
        others = _unit(thumbnails[places.flatten()].float()).unflatten(0, places.shape)
        both = [(others @ _unit(query)[:, :, None])[:, :, 0] for query in (own, mirrored)]
        cosines[start : start + BLOCK] = torch.maximum(*both)
    return cosines


def _unit(thumbnails: Tensor) -> Tensor:
    centred = thumbnails - thumbnails.mean(dim=1, keepdim=True)
    lengths = centred.norm(dim=1, keepdim=True)
    return torch.where(lengths > FLAT, centred / lengths, 0.0)


def near_duplicates(
    neighbours: Neighbours, pixels: Tensor, *, least_cosine: float, least_pixel_cosine: float
) -> NearDuplicates:
    """Pairs of neighbours that are near by their features or by their thumbnails.

    A row has at most as many pairs as neighbours: of many copies not all pairs are listed, but all
    are in one group.

    Args:
        neighbours: of N rows among themselves.
        pixels: (N, k) from `pixel_cosines`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    total, rows = len(neighbours.rows), neighbours.rows.numpy()
    near = (neighbours.cosines >= least_cosine) | (pixels >= least_pixel_cosine)
    first, place = np.nonzero(near.numpy())
    found = np.sort(np.stack([first, rows[first, place]], axis=1), axis=1)
    pairs, index = np.unique(found, axis=0, return_index=True)
    first, place = first[index], place[index]
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), (total, total))
    _, component = connected_components(graph, directed=False)
    is_grouped = np.zeros(total, bool)
    is_grouped[pairs.ravel()] = True
    # the components are numbered by their first row; those of one row alone are left out
    groups = np.full(total, -1, np.int64)
    groups[is_grouped] = np.unique(component[is_grouped], return_inverse=True)[1]
    cosines = neighbours.cosines.numpy()[first, place]
    return NearDuplicates(pairs, cosines, pixels.numpy()[first, place], groups)
