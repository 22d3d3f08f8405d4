"""Random parameters of one crop, and their application: two steps that know of each other only
``CropDraw``, so that another implementation of the second sees the same draws.

The operations and the distributions of their parameters are those of SwAV (Caron et al. 2020,
arXiv:2006.09882, appendix A), which are SimCLR's as torchvision words them, in this order: crop,
flip, colour jitter, grey, blur. Pixels follow Pillow's arithmetic to within rounding.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageFilter

BLUR_RADIUS = 11  # of the published models' kernel: 23 taps
MAX_ATTEMPTS = 10  # at a box that fits into the image, as in torchvision

# Where each random number of a crop lies in its block of uniform draws. A fixed layout makes every
# parameter independent of which branches the others take.
_AREAS = slice(0, MAX_ATTEMPTS)
_ASPECTS = slice(MAX_ATTEMPTS, 2 * MAX_ATTEMPTS)
_TOP, _LEFT, _FLIP, _JITTER, _GRAYSCALE, _BLUR, _SIGMA = range(
    2 * MAX_ATTEMPTS, 2 * MAX_ATTEMPTS + 7
)
_FACTORS = slice(_SIGMA + 1, _SIGMA + 5)
_ORDER = slice(_SIGMA + 5, _SIGMA + 9)
NUM_UNIFORMS = _SIGMA + 9


@dataclass(frozen=True)
class ColorJitter:
    """Four changes of colour in random order, as torchvision's ColorJitter."""

    probability: float
    brightness: float  # factor from [max(0, 1 - b), 1 + b]; contrast and saturation likewise
    contrast: float
    saturation: float
    hue: float  # shift from [-h, h] of the colour circle; at most 0.5


@dataclass(frozen=True)
class Blur:
    """Gaussian blur."""

    probability: float
    sigma: tuple[float, float]  # range, pixels of the crop
    kind: Literal["gaussian23", "pil"]  # 23 taps as the published models, or Pillow's box blurs


@dataclass(frozen=True)
class CropRule:
    """What the random parameters of one crop are drawn from."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    jitter: ColorJitter
    grayscale: float
    blur: Blur


@dataclass(frozen=True)
class CropDraw:
    """All that is random about one crop."""

    size: int  # side of the result, pixels
    top: int  # the box, in pixels of the source image
    left: int
    height: int
    width: int
    flip: bool
    jitter: tuple[tuple[str, float], ...]  # (operation, its factor) in the order of application
    grayscale: bool
    sigma: float | None  # of the blur, pixels; None for no blur


def draw_crop(height: int, width: int, rule: CropRule, uniforms: list[float]) -> CropDraw:
    """Draw the parameters of one crop of a image of ``height`` x ``width`` pixels.

    Args:
        uniforms: ``NUM_UNIFORMS`` independent draws from [0, 1).
    """
    top, left, box_height, box_width = _draw_box(height, width, rule, uniforms)
    low, high = rule.blur.sigma
    return CropDraw(
        size=rule.size,
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        flip=uniforms[_FLIP] < rule.flip,
        jitter=_draw_jitter(rule.jitter, uniforms),
        grayscale=uniforms[_GRAYSCALE] < rule.grayscale,
        sigma=(
            low + (high - low) * uniforms[_SIGMA]
            if uniforms[_BLUR] < rule.blur.probability
            else None
        ),
    )


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


def _draw_box(
    height: int, width: int, rule: CropRule, uniforms: list[float]
) -> tuple[int, int, int, int]:
    """Top, left, height and width: torchvision's RandomResizedCrop, its fallback included."""
    low, high = rule.scale
    log_low, log_high = math.log(rule.ratio[0]), math.log(rule.ratio[1])
    for area_draw, aspect_draw in zip(uniforms[_AREAS], uniforms[_ASPECTS], strict=True):
        area = height * width * (low + (high - low) * area_draw)
        aspect = math.exp(log_low + (log_high - log_low) * aspect_draw)
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(uniforms[_TOP] * (height - box_height + 1))
            left = int(uniforms[_LEFT] * (width - box_width + 1))
            return top, left, box_height, box_width
    box_height = min(height, max(1, round(width / rule.ratio[0])))
    box_width = min(width, max(1, round(height * rule.ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _draw_jitter(jitter: ColorJitter, uniforms: list[float]) -> tuple[tuple[str, float], ...]:
    if uniforms[_JITTER] >= jitter.probability:
        return ()
    ranges = (
        ("brightness", max(0.0, 1 - jitter.brightness), 1 + jitter.brightness),
        ("contrast", max(0.0, 1 - jitter.contrast), 1 + jitter.contrast),
        ("saturation", max(0.0, 1 - jitter.saturation), 1 + jitter.saturation),
        ("hue", -jitter.hue, jitter.hue),
    )
    drawn = [
        (order, (name, low + (high - low) * uniform))
        for (name, low, high), uniform, order in zip(
            ranges, uniforms[_FACTORS], uniforms[_ORDER], strict=True
        )
        if low < high
    ]
    return tuple(operation for _, operation in sorted(drawn))


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
    # Weights beyond 4 sigma are below 1/1000 of a grey level; leaving them out is twice as fast.
    radius = min(BLUR_RADIUS, math.ceil(4 * sigma))
    kernel = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(crop, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def _blur_pil(crop: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(sigma)))


_BLURS = {"gaussian23": _blur_gaussian23, "pil": _blur_pil}
