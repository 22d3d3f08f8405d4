"""A plug-in: a data set whose images take long, by a clock that moves with each of them."""

import numpy as np

from ssl_platform.console.working import WATCH
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.registry import DATASETS

SECONDS = 1.5  # of an image
moment = 0.0


@DATASETS.register()
class SlowImages(ImageDataset):
    """Noise in two classes."""

    def __init__(self, *, number: int):
        self.labels = np.arange(number) % 2

    def __len__(self) -> int:
        assert self.labels is not None
        return len(self.labels)

    def describe(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> np.ndarray:
        global moment
        moment += SECONDS
        WATCH.look()  # as its thread does, now and then
        return np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def clock() -> float:
    """Seconds."""
    return moment
