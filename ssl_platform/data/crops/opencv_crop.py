"""Crops by OpenCV: where the compiled kernel of ``native_crop`` could not be built."""

import cv2
import numpy as np

from ssl_platform.data.crops.augment import CropDraw
from ssl_platform.data.crops.blur import blur_pil, gaussian23_kernel


def apply_crop(image: np.ndarray, draw: CropDraw, blur_kind: str) -> np.ndarray:
    """Cut one crop out of ``image`` ((H, W, 3) uint8 RGB); (size, size, 3) uint8 RGB."""
    box = image[draw.top : draw.top + draw.height, draw.left : draw.left + draw.width]
    shrinking = draw.height >= draw.size and draw.width >= draw.size
    interpolation = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    crop = cv2.resize(box, (draw.size, draw.size), interpolation=interpolation)
    if draw.flip:
        crop = cv2.flip(crop, 1)
    for operation, factor in draw.jitter:
        crop = _OPERATIONS[operation](crop, factor)
    if draw.grayscale:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if draw.sigma is not None:
        crop = _BLURS[blur_kind](crop, draw.sigma)
    return crop


# Pillow cuts fractions off where OpenCV rounds. Whole numbers must stay what they are: so not 0.5.
_TRUNCATE = -0.49


def _brightness(crop: np.ndarray, factor: float) -> np.ndarray:
    return cv2.convertScaleAbs(crop, alpha=factor, beta=_TRUNCATE)


def _contrast(crop: np.ndarray, factor: float) -> np.ndarray:
    mean = int(cv2.mean(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.addWeighted(crop, factor, crop, 0, (1 - factor) * mean + _TRUNCATE)


def _saturation(crop: np.ndarray, factor: float) -> np.ndarray:
    gray = (1 - factor) * _LUMA
    matrix = np.column_stack([factor * _IDENTITY + gray, _OFFSET])
    return cv2.transform(crop, matrix)


def _hue(crop: np.ndarray, shift: float) -> np.ndarray:
    hsv = cv2.cvtColor(crop, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)  # wraps round, as the colour circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


_LUMA = np.array([[0.299, 0.587, 0.114]] * 3, dtype=np.float32)  # ITU-R BT.601
_IDENTITY = np.eye(3, dtype=np.float32)
_OFFSET = np.full(3, _TRUNCATE, dtype=np.float32)
_OPERATIONS = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}


def _blur_gaussian23(crop: np.ndarray, sigma: float) -> np.ndarray:
    kernel = gaussian23_kernel(sigma)
    return cv2.sepFilter2D(crop, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


_BLURS = {"gaussian23": _blur_gaussian23, "pil": blur_pil}
