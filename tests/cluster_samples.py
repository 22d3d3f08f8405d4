"""Small data sets and their clusters, made up."""

import numpy as np

from ssl_platform.clusters.nearest import Clusters
from ssl_platform.data.dataset import ImageDataset, UnreadableImage


class Colours(ImageDataset):
    """Images of one colour each, 20 x 20 or of ``shapes``; None cannot be read."""

    def __init__(self, colours, labels=None, shapes=None):
        self.colours, self.shapes = colours, shapes or [(20, 20)] * len(colours)
        self.labels = None if labels is None else np.array(labels)
        self.num_reads = 0

    def __len__(self):
        return len(self.colours)

    def read(self, index):
        self.num_reads += 1
        if self.colours[index] is None:
            raise UnreadableImage(self.describe(index), "not an image")
        return np.full((*self.shapes[index], 3), self.colours[index], np.uint8)

    def describe(self, index):
        return f"Colours[{index}]"


def clusters_of(ids, num_clusters, scores=0.5, **options) -> Clusters:
    """Of images by their ids, (N,) or (N, sets); -1 for one that cannot be read."""
    ids = np.array(ids, np.int32).reshape(len(ids), -1)
    scores = np.array(scores, np.float32)
    scores = np.broadcast_to(scores.reshape(ids.shape) if scores.ndim else scores, ids.shape)
    scores = np.where(ids < 0, np.float32(np.nan), scores)
    return Clusters(ids, scores, scores / 3, num_clusters, **options)
