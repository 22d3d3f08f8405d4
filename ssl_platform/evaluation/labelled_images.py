"""The images that an evaluation trains on and tests on, with classes that match."""

from dataclasses import dataclass, replace

import numpy as np

from ssl_platform.config.options import DataOptions, Node
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.sets.classes import check_labelled, labels_to_test
from ssl_platform.engine.build import open_dataset
from ssl_platform.ops.sampling import stratified_split


@dataclass(frozen=True)
class LabelledImages:
    """Some images of a data set.

    Attributes:
        role: ``train`` or ``test``.
        node: config of the data set.
        positions: (N,) in the data set.
        targets: (N,) int64 classes, or (N, C) where an image may have several.
    """

    role: str
    node: Node
    dataset: ImageDataset
    positions: np.ndarray
    targets: np.ndarray

    def part(self, role: str, rows: np.ndarray) -> "LabelledImages":
        """The images at some rows of ``positions``, for another role."""
        return replace(self, role=role, positions=self.positions[rows], targets=self.targets[rows])


def open_labelled_images(
    data: DataOptions, test_fraction: float, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Images to train on and images to test on, their classes matched by name.

    Without ``data.val`` a fraction of each class of the training images is held out; the seed
    decides which.

    Raises:
        ValueError: labels are missing or do not fit; the message begins with the key.
    """
    train = _labelled("train", data.train, "train", data)
    classes = np.unique(train.targets)
    if len(classes) < 2:
        raise ValueError(
            f"data.train: all {len(train.targets)} labelled images are of one class; a figure "
            "needs two"
        )
    if data.val is not None:
        test = _labelled("val", data.val, "test", data)
        labels = labels_to_test(train.dataset, test.dataset)
        return train, replace(test, targets=labels[test.positions])
    rest, held_out = stratified_split(train.targets, test_fraction, np.random.default_rng(seed))
    if not len(held_out):
        raise ValueError(
            "data.val=null: no class of data.train has two images, so that none can be held out"
        )
    return train.part("train", rest), train.part("test", held_out)


def _labelled(key: str, node: Node, role: str, data: DataOptions) -> LabelledImages:
    dataset = open_dataset(node, data)
    check_labelled(key, dataset)
    assert dataset.labels is not None
    positions = np.flatnonzero(dataset.labels >= 0)
    return LabelledImages(role, node, dataset, positions, dataset.labels[positions])
