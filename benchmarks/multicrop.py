"""Speed of the multi-crop pipeline, JPEG bytes to crops, against Pillow + torchvision and lightly.

    python benchmarks/multicrop.py [--rounds 9]

All make 2 x 224 + 6 x 96 crops with SwAV's augmentation from JPEGs of 500 x 375. The platform's
crops are uint8, and normalised on the device in training; the others' are float32 and normalised.
"""

from ratios import Row, rounds_of, run_alone, speedups  # isort: skip (threads)

import importlib.util
import io
from collections.abc import Callable, Iterator
from functools import partial
from time import thread_time
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from ssl_platform.data.crops import native_crop, opencv_crop
from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.crops.ops import ColorJitter, GaussianBlur, Grayscale, HorizontalFlip
from ssl_platform.data.decoding.decode import decode

LARGE = CropGroup(size=224, count=2, scale=(0.14, 1.0))
SMALL = CropGroup(size=96, count=6, scale=(0.05, 0.14))
MEAN, STD = [0.485, 0.456, 0.406], [0.228, 0.224, 0.225]
JPEG_BYTES = 70_000


def photograph(seed: int) -> bytes:
    """A JPEG of 500 x 375 pixels and about 70 KB, with the 1/f spectrum of photographs."""
    rng = np.random.default_rng(seed)
    height, width = 375, 500
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width))) / frequency**1.1
    planes = np.fft.irfft2(spectrum, (height, width))
    mixed = np.tensordot([[1, 0.2, 0.1], [1, 0, -0.1], [1, -0.2, 0.1]], planes, 1)
    pixels = 110 + 55 * mixed / mixed.std()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    candidates = []
    for quality in range(50, 98, 3):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        candidates.append(buffer.getvalue())
    return min(candidates, key=lambda data: abs(len(data) - JPEG_BYTES))


def platform_pipeline(crops: ModuleType) -> Callable[[bytes], list[np.ndarray]]:
    """By one of the two implementations of crops."""
    multicrop = MultiCrop(
        crops={"large": LARGE, "small": SMALL},
        ratio=(3 / 4, 4 / 3),
        ops={
            "flip": HorizontalFlip(probability=0.5),
            "jitter": ColorJitter(
                probability=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
            ),
            "grayscale": Grayscale(probability=0.2),
            "blur": GaussianBlur(probability=0.5, sigma=(0.1, 2.0), kind="gaussian23"),
        },
    )
    rng = np.random.default_rng(0)

    def run(data: bytes) -> list[np.ndarray]:
        image = decode(data)
        draws = multicrop.draw(*image.shape[:2], rng)
        return [crops.apply_crop(image, draw) for draw in draws]

    return run


class PillowBlur:
    """Pillow's blur of half of the crops."""

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) >= 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def torchvision_pipeline() -> Callable[[bytes], list[torch.Tensor]]:
    """JPEG bytes to crops by Pillow and torchvision."""
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    transform_of_size = {
        group.size: transforms.Compose(
            [
                transforms.RandomResizedCrop(group.size, group.scale),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([jitter], 0.8),
                transforms.RandomGrayscale(0.2),
                PillowBlur(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        for group in (LARGE, SMALL)
    }
    sizes = [group.size for group in (LARGE, SMALL) for _ in range(group.count)]

    def run(data: bytes) -> list[torch.Tensor]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return [transform_of_size[size](image) for size in sizes]

    return run


def lightly_pipeline() -> Callable[[bytes], list[torch.Tensor]]:
    """JPEG bytes to crops by lightly's SwAV transform."""
    from lightly.transforms.swav_transform import SwaVTransform

    transform = SwaVTransform()
    return lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB"))


def rows(rounds: int) -> Iterator[Row]:
    cv2.setNumThreads(0)
    images = [photograph(seed) for seed in range(24)]
    pipelines: dict[str, Callable[[bytes], Any]] = {
        "Pillow + torchvision": torchvision_pipeline(),
        "OpenCV": platform_pipeline(opencv_crop),
    }
    targets = {"OpenCV": 3.0}
    if native_crop.AVAILABLE:
        pipelines["compiled kernel"] = platform_pipeline(native_crop)
        targets["compiled kernel"] = 6.0
    peers = ["Pillow + torchvision"]
    if importlib.util.find_spec("lightly"):
        pipelines["lightly"] = lightly_pipeline()
        peers.append("lightly")
    else:
        print("lightly is not installed, left out (pip install lightly)")

    def run(name: str) -> None:
        for data in images:
            pipelines[name](data)

    contenders = {name: partial(run, name) for name in pipelines}
    seconds = rounds_of(contenders, rounds, clock=thread_time)
    for peer in peers:
        for name, target in targets.items():
            yield Row(f"crops by {name}, {peer}", speedups(seconds[peer], seconds[name]), target)


if __name__ == "__main__":
    run_alone(__doc__, rows, 9)
