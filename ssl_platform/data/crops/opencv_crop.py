"""Crops by OpenCV: of other than 3 channels, or where the compiled kernel of ``native_crop`` could
not be built."""

import numpy as np

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.draw import CropDraw


def apply_crop(image: np.ndarray, draw: CropDraw) -> np.ndarray:
    """Cut one crop out of ``image`` ((H, W, C) uint8); (height, width, C) uint8."""
    top, left, height, width = draw.box
    crop = pixels.resize(image[top : top + height, left : left + width], draw.size)
    for function, value in draw.steps:
        crop = function(crop, value)
    return crop
