"""What ops do to pixels, by OpenCV, Pillow and numpy: (H, W, C) uint8 to the same shape.

The compiled kernel knows some of these functions too, see ``native_crop``. Those of colour are of
3 channels, red, green and blue; the others of any number.
"""

import math
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter

from ssl_platform.data.crops.streams import generator
from ssl_platform.data.decoding.pixels import COLOURS

RADIUS = 11  # of the published models' kernel: 23 taps

# Pillow cuts fractions off where OpenCV rounds. Whole numbers must stay what they are: so not 0.5.
_TRUNCATE = -0.49
_LUMA = np.array([[0.299, 0.587, 0.114]] * 3, dtype=np.float32)  # ITU-R BT.601
_IDENTITY = np.eye(3, dtype=np.float32)
_OFFSET = np.full(3, _TRUNCATE, dtype=np.float32)
_LEVELS = np.arange(256, dtype=np.uint8)
_MOST_BANDS = 4  # that OpenCV shrinks at once


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image scaled to a height and width."""
    height, width, channels = image.shape
    shrinking = height >= size[0] and width >= size[1]
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    parts = [
        cv2.resize(image[..., c : c + _MOST_BANDS], size[::-1], interpolation=interpolation)
        for c in range(0, channels, _MOST_BANDS)
    ]
    if len(parts) == 1:
        return parts[0].reshape(*size, channels)
    return np.concatenate([part.reshape(*size, -1) for part in parts], axis=2)


def mirror(crop: np.ndarray, _: None) -> np.ndarray:
    """Left and right exchanged."""
    return cv2.flip(crop, 1).reshape(crop.shape)


def upside_down(crop: np.ndarray, _: None) -> np.ndarray:
    """Top and bottom exchanged."""
    return cv2.flip(crop, 0).reshape(crop.shape)


def brightness(crop: np.ndarray, factor: float) -> np.ndarray:
    """Levels times a factor."""
    return cv2.convertScaleAbs(crop, alpha=factor, beta=_TRUNCATE).reshape(crop.shape)


def contrast(crop: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the mean grey, of other than 3 channels the mean of all, times a factor."""
    height, _, channels = crop.shape
    gray = (
        cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if channels == COLOURS else crop.reshape(height, -1)
    )
    mean = int(cv2.mean(gray)[0] + 0.5)
    shift = (1 - factor) * mean + _TRUNCATE
    return cv2.addWeighted(crop, factor, crop, 0, shift).reshape(crop.shape)


def saturation(crop: np.ndarray, factor: float) -> np.ndarray:
    """Distances of colours from their grey times a factor."""
    matrix = np.column_stack([factor * _IDENTITY + (1 - factor) * _LUMA, _OFFSET])
    return cv2.transform(crop, matrix)


def hue(crop: np.ndarray, shift: float) -> np.ndarray:
    """Colours turned by a part of the colour circle."""
    hsv = cv2.cvtColor(crop, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)  # wraps round, as the colour circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def grayscale(crop: np.ndarray, _: None) -> np.ndarray:
    """Three equal channels."""
    return cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def solarize(crop: np.ndarray, threshold: float) -> np.ndarray:
    """Levels from a threshold on inverted."""
    return cv2.LUT(crop, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS)).reshape(crop.shape)


def posterize(crop: np.ndarray, bits: int) -> np.ndarray:
    """The upper bits of each level; the others become 0."""
    return crop & np.uint8(0xFF00 >> bits & 0xFF)


def gaussian23_kernel(sigma: float) -> np.ndarray:
    """The weights of at most 23 taps; (n,) float32 with odd n."""
    # Weights beyond 4 sigma are below 1/1000 of a grey level; leaving them out is twice as fast.
    radius = min(RADIUS, math.ceil(4 * sigma))
    return cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F).ravel()


def gaussian_blur(crop: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of at most 23 taps, the edges mirrored."""
    kernel = gaussian23_kernel(sigma)
    blurred = cv2.sepFilter2D(crop, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return blurred.reshape(crop.shape)


def pil_blur(crop: np.ndarray, sigma: float) -> np.ndarray:
    """Pillow's GaussianBlur, three box blurs."""
    return by_pillow(crop, lambda image, _: image.filter(ImageFilter.GaussianBlur(sigma)))


def quarter_turns(crop: np.ndarray, number: int) -> np.ndarray:
    """Turned anticlockwise by so many times 90 degrees."""
    return np.ascontiguousarray(np.rot90(crop, number))


def rotate(crop: np.ndarray, value: tuple[float, Image.Resampling, int | list[int]]) -> np.ndarray:
    """Turned anticlockwise about the middle by some degrees; what comes into sight is filled."""
    angle, resampling, fill = value
    return by_pillow(
        crop, lambda image, level: image.rotate(angle, resampling, fillcolor=level), fill
    )


def erase(crop: np.ndarray, value: tuple[int, int, int, int, Any]) -> np.ndarray:
    """A box (top, left, height, width) filled with levels, or with noise of a seed."""
    top, left, height, width, fill = value
    if isinstance(fill, tuple):
        fill = generator(fill).integers(0, 256, (height, width, crop.shape[2]), np.uint8)
    changed = crop.copy()
    changed[top : top + height, left : left + width] = fill
    return changed


def by_pillow(image: np.ndarray, change: Any, fill: int | list[int] = 0) -> np.ndarray:
    """What ``change(image, fill)`` makes of an image of Pillow; channels one by one if not RGB."""
    channels = image.shape[2]
    levels = [fill] * channels if isinstance(fill, int) else fill
    if channels == COLOURS:
        return np.asarray(change(Image.fromarray(image), tuple(levels)))
    bands = [
        np.asarray(change(Image.fromarray(np.ascontiguousarray(image[..., c])), levels[c]))
        for c in range(channels)
    ]
    return np.stack(bands, axis=2)
