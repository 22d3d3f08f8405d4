"""Pairs of rows that are so near that they are probably one image, and the groups they form."""

from typing import NamedTuple

import numpy as np

from ssl_platform.ops.neighbours import Neighbours


class NearDuplicates(NamedTuple):
    """The pairs of nearest neighbours above a cosine, and the groups that they connect."""

    pairs: np.ndarray  # (P, 2) int64 rows, the lower first, in order
    cosines: np.ndarray  # (P,) float32
    groups: np.ndarray  # (N,) int64, numbered by their first row; -1: in none


def near_duplicates(neighbours: Neighbours, least: float) -> NearDuplicates:
    """Pairs of rows whose cosine is at least ``least``, each among the nearest of the other.

    A row has at most as many pairs as neighbours: of many copies not all pairs are listed, but all
    are in one group.

    Args:
        neighbours: of N rows among themselves.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    cosines, rows = (part.cpu().numpy() for part in neighbours)
    total = len(rows)
    first, place = np.nonzero(cosines >= least)
    found = np.sort(np.stack([first, rows[first, place]], axis=1), axis=1)
    pairs, index = np.unique(found, axis=0, return_index=True)
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), (total, total))
    _, component = connected_components(graph, directed=False)
    is_grouped = np.zeros(total, bool)
    is_grouped[pairs.ravel()] = True
    # the components are numbered by their first row; those of one row alone are left out
    groups = np.full(total, -1, np.int64)
    groups[is_grouped] = np.unique(component[is_grouped], return_inverse=True)[1]
    return NearDuplicates(pairs, cosines[first[index], place[index]], groups)
