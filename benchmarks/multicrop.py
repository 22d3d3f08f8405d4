"""Speed of the multi-crop pipeline, JPEG bytes to crops, against Pillow + torchvision.

    python benchmarks/multicrop.py [--rounds 9] [--images 24]

Both do 2 x 224 + 6 x 96 crops with SwAV's augmentation. CPU time of one thread, rounds interleaved
in one process, so that a busy machine slows both alike. The platform's crops are uint8, normalised
on the device in training; the ratio with normalisation on this thread is printed too.
"""

import argparse
import io
import statistics
from collections.abc import Callable
from time import thread_time

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from ssl_platform.data.augment import Blur, ColorJitter
from ssl_platform.data.decode import decode
from ssl_platform.data.multicrop import CropGroup, MultiCrop

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


def platform_pipeline() -> Callable[[bytes], list[np.ndarray]]:
    multicrop = MultiCrop(
        crops={"large": LARGE, "small": SMALL},
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=ColorJitter(0.8, 0.8, 0.8, 0.8, 0.2),
        grayscale=0.2,
        blur=Blur(0.5, (0.1, 2.0), "gaussian23"),
    )
    rng = np.random.default_rng(0)
    return lambda data: multicrop(decode(data), rng)


def platform_pipeline_normalized() -> Callable[[bytes], list[torch.Tensor]]:
    crops_of = platform_pipeline()
    scale = 1 / (255 * torch.tensor(STD))
    shift = -torch.tensor(MEAN) * 255 * scale
    tables = {
        group.size: (scale.repeat(group.size), shift.repeat(group.size)) for group in (LARGE, SMALL)
    }

    def run(data: bytes) -> list[torch.Tensor]:
        normalized = []
        for crop in crops_of(data):
            scale, shift = tables[len(crop)]
            rows = torch.from_numpy(crop).flatten(1).float()
            normalized.append(torch.addcmul(shift, rows, scale))
        return normalized

    return run


class PillowBlur:
    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()) >= 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def torchvision_pipeline() -> Callable[[bytes], list[torch.Tensor]]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=24)
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    images = [photograph(seed) for seed in range(args.images)]
    pipelines = {
        "Pillow + torchvision, float32": torchvision_pipeline(),
        "ssl_platform, float32": platform_pipeline_normalized(),
        "ssl_platform, uint8": platform_pipeline(),
    }
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for pipeline in pipelines.values():
        pipeline(images[0])
    for _ in range(args.rounds):
        for name, pipeline in pipelines.items():
            start = thread_time()
            for data in images:
                pipeline(data)
            rates[name].append(len(images) / (thread_time() - start))

    mean_size = statistics.mean(map(len, images)) / 1000
    print(
        f"{args.rounds} rounds of {args.images} JPEGs of 500 x 375, {mean_size:.0f} KB on average"
    )
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, first, strict=True))
        print(
            f"{name:32}{statistics.median(values):7.1f} images per CPU second "
            f"({min(values):.1f} .. {max(values):.1f})   ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
