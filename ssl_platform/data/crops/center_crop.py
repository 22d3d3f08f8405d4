"""The transform of evaluation."""

import numpy as np
from PIL import Image

from ssl_platform.data.crops.pixels import by_pillow
from ssl_platform.data.crops.ranges import Size
from ssl_platform.ops.image_size import ImageSize, height_and_width, in_words
from ssl_platform.registry import TRANSFORMS

MAX_ELONGATION = 100


@TRANSFORMS.register()
class CenterCrop:
    """The centre of an image whose short side is scaled to ``resize``: torchvision's Resize and
    CenterCrop, to the pixel.

    Args:
        resize: length of the short side, pixels; two numbers are the height and width that an image
            of any shape is scaled to.
        size: side of the crop, or its height and width, pixels.

    Raises:
        ValueError: ``size`` larger than ``resize``.
    """

    num_crops = 1

    def __init__(self, *, resize: Size, size: Size):
        height, width = height_and_width(size)
        most_height, most_width = height_and_width(resize)
        if height > most_height or width > most_width:
            most = resize if isinstance(resize, int) else in_words(resize)
            given = size if isinstance(size, int) else list(size)
            raise ValueError(f"size={given}: must lie in 1..{most}, the value of resize")
        self.resize, self.size = resize, size

    @property
    def crop_sizes(self) -> list[ImageSize]:
        """Side of the one crop, or its height and width, in pixels."""
        return [self.size]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """One crop of ``image`` ((H, W, C) uint8): (height, width, C); nothing is random."""
        image = _middle(image)
        scaled = self._scaled_size(*image.shape[:2])
        if scaled != image.shape[:2]:
            # Pillow, where training crops are OpenCV's: published numbers are measured with it.
            image = by_pillow(
                image, lambda band, _: band.resize(scaled[::-1], Image.Resampling.BILINEAR)
            )
        height, width = height_and_width(self.size)
        top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
        return [image[top : top + height, left : left + width]]

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            return self.resize
        short, long = sorted((height, width))
        if short == self.resize:
            return height, width
        long = int(self.resize * long / short)
        return (long, self.resize) if width <= height else (self.resize, long)


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle of a long strip: a crop shows no more of it, and the whole would be scaled to
    gigabytes."""
    height, width = image.shape[:2]
    longest = MAX_ELONGATION * min(height, width)
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return image[top : top + longest, left : left + longest]
