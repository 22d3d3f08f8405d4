"""A few images beside the crops that the training makes of them."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssl_platform.console import escaped
from ssl_platform.data.contract import make_crops, prepare, read_image
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.reports.pictures import Picture, picture

NUM_IMAGES = 4
MOST_TRIED = 16  # images, where some cannot be read
MOST_CROPS = 12  # of an image


@dataclass(frozen=True)
class CroppedImage:
    """An image and its crops.

    Attributes:
        name: where it comes from.
        original: as it is stored.
        crops: in the order in which the model gets them.
    """

    name: str
    original: Picture
    crops: list[Picture]


def cropped_images(dataset: ImageDataset, transform: Any, *, seed: int) -> list[CroppedImage]:
    """Some images of a data set with crops of a fixed seed.

    Nothing is drawn from the random numbers that a training goes on with, also by a transform that
    takes them from torch, numpy or Python.

    Raises:
        DataError: the set or the transform is not what it has to be.
    """
    prepare(dataset)
    rng = np.random.default_rng(seed)
    positions = rng.choice(len(dataset), min(MOST_TRIED, len(dataset)), replace=False)
    found: list[CroppedImage] = []
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            for position in positions.tolist():
                if len(found) < NUM_IMAGES:
                    found += _cropped(dataset, position, transform, rng)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return found


def _cropped(
    dataset: ImageDataset, position: int, transform: Any, rng: np.random.Generator
) -> list[CroppedImage]:
    """One image with its crops; none where it cannot be read."""
    try:
        image = read_image(dataset, position)
    except UnreadableImage:
        return []
    crops = make_crops(transform, image, rng)[:MOST_CROPS]
    names = transform.crop_names if isinstance(transform, MultiCrop) else ["crop"] * len(crops)
    named = [f"{escaped(name)} {_size(crop)}" for name, crop in zip(names, crops, strict=False)]
    return [
        CroppedImage(
            name=escaped(dataset.describe(position)),
            original=picture(image, f"original {_size(image)}"),
            crops=[picture(crop, name) for crop, name in zip(crops, named, strict=True)],
        )
    ]


def _size(image: np.ndarray) -> str:
    """Width and height, as photographers write them."""
    height, width = image.shape[:2]
    return f"{width} x {height}"
