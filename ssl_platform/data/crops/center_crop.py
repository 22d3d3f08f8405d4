"""The transform of evaluation."""

import numpy as np
from PIL import Image

from ssl_platform.registry import TRANSFORMS

MAX_ELONGATION = 100


@TRANSFORMS.register()
class CenterCrop:
    """The centre of an image whose short side is scaled to ``resize``: torchvision's Resize and
    CenterCrop, to the pixel.

    Args:
        resize: length of the short side, pixels.
        size: side of the crop, pixels.

    Raises:
        ValueError: ``size`` larger than ``resize``, or below 1.
    """

    num_crops = 1

    def __init__(self, *, resize: int, size: int):
        if not 1 <= size <= resize:
            raise ValueError(f"size={size}: must lie in 1..{resize}, the value of resize")
        self.resize, self.size = resize, size

    @property
    def crop_sizes(self) -> list[int]:
        """Side of the one crop, in pixels."""
        return [self.size]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """One crop of ``image`` ((H, W, 3) uint8 RGB): (size, size, 3); nothing is random."""
        image = _middle(image)
        height, width, _ = image.shape
        short, long = sorted((height, width))
        if short != self.resize:
            long = int(self.resize * long / short)
            scaled = (self.resize, long) if width <= height else (long, self.resize)
            # Pillow, where training crops are OpenCV's: published numbers are measured with it.
            image = np.asarray(Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR))
            height, width, _ = image.shape
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return [image[top : top + self.size, left : left + self.size]]


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle of a long strip: a crop shows no more of it, and the whole would be scaled to
    gigabytes."""
    height, width, _ = image.shape
    longest = MAX_ELONGATION * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return image[top : top + longest, left : left + longest]
