"""Where the model puts images, in two dimensions."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.feature_table import principal_components

PCA, T_SNE = "PCA", "t-SNE"
FEWEST = 8  # images of which a map says something
PERPLEXITY = 30.0  # neighbours that t-SNE keeps near; of few images a quarter of them
ITERATIONS = 500
MARGIN = 0.03  # around the points, of the map's side


def maps_of(features: Tensor, *, with_neighbours: bool) -> dict[str, np.ndarray]:
    """Maps of N images by the directions of their features.

    PCA shows the two directions of the largest variance. t-SNE (van der Maaten and Hinton 2008)
    keeps near neighbours near, whatever is further away; it starts from the PCA.

    Args:
        features: (N, D) finite.
        with_neighbours: also t-SNE, which takes a second or two.

    Returns:
        By name (N, 2) float, each column in [0, 1]; none for too few images.
    """
    if len(features) < FEWEST:
        return {}
    rows = F.normalize(features.float(), dim=1)
    mean, directions = principal_components(rows, 2)
    flat = (rows - mean) @ F.pad(directions, (0, 2 - directions.shape[1]))
    maps = {PCA: _fitted(flat.numpy())}
    if with_neighbours:
        maps[T_SNE] = _fitted(_t_sne(rows.numpy(), flat.numpy()))
    return maps


def _t_sne(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE  # a second, which only the end of a training needs
    from threadpoolctl import threadpool_limits

    scale = 1e-4 / max(float(start[:, 0].std()), 1e-12)  # as its authors begin
    with threadpool_limits(torch.get_num_threads()):
        found = TSNE(
            perplexity=min(PERPLEXITY, len(rows) / 4),
            init=(start * scale).astype(np.float32),
            max_iter=ITERATIONS,
            random_state=0,
        ).fit_transform(rows)
    return np.nan_to_num(found)


def _fitted(points: np.ndarray) -> np.ndarray:
    """Points moved and scaled into the unit square, the axes by the same factor."""
    lowest, highest = points.min(axis=0), points.max(axis=0)
    span = max(float((highest - lowest).max()), 1e-12)
    inner = (points - (lowest + highest) / 2) / span * (1 - 2 * MARGIN)
    return inner + 0.5
