"""A set of numbered images and a loader of it; a training on a folder of images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from swav_ops import swav_ops

from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.loading.loader import Loader, LoaderOptions
from ssl_platform.data.loading.sampler import SequentialSampler, ShuffledSampler

NORMALIZE = Normalize(mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])


class Numbered(ImageDataset):
    """Image i has its number in its first pixel; those in ``bad`` cannot be read."""

    def __init__(self, num_samples: int, bad: tuple[int, ...] = (), labelled: bool = True):
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 256, (num_samples, 24, 24, 3), np.uint8)
        self._images[:, 0, 0, 0] = np.arange(num_samples)
        self.labels = np.arange(num_samples) % 3 if labelled else None
        self._bad = bad

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> np.ndarray:
        if index in self._bad:
            raise UnreadableImage(self.describe(index), "not an image")
        return self._images[index]

    def describe(self, index: int) -> str:
        return f"{index}.jpg"


def multicrop() -> MultiCrop:
    return MultiCrop(
        crops={"large": CropGroup(16, 2, (0.2, 1.0)), "small": CropGroup(10, 1, (0.1, 0.2))},
        ratio=(3 / 4, 4 / 3),
        ops=swav_ops(),
    )


OPTIONS = LoaderOptions(
    batch_size=4,
    drop_last=False,
    num_workers=0,
    start_method=None,
    timeout_seconds=60.0,
    seed=5,
    normalize=NORMALIZE,
    max_bad_fraction=0.0,
    replace_bad=True,
)


def loader(dataset: ImageDataset, sampler=None, transform=None, **options) -> Loader:
    sampler = sampler or SequentialSampler(range(len(dataset)), 0, 1)
    transform = transform or CenterCrop(resize=24, size=24)
    return Loader(dataset, transform, sampler, replace(OPTIONS, **options), torch.device("cpu"))


def shuffled(num_samples: int, rank: int = 0, world_size: int = 1) -> ShuffledSampler:
    return ShuffledSampler(num_samples, batch_size=4, rank=rank, world_size=world_size, seed=1)


def on_folder(tiny: list[str], folder: Path, batch_size: int) -> list[str]:
    """The options of the tiny training, on the images of a folder instead of made ones."""
    keep = [o for o in tiny if not o.startswith("data.") and "num_labels" not in o]
    crops = "data.transform.crops"
    return [
        *keep, "data=folder", f"data.train.path={folder}", f"data.batch_size={batch_size}",
        f"{crops}.large.size=32", f"{crops}.small.size=20", "data.num_workers=0",
    ]  # fmt: skip
