"""The random parameters of one crop. Two modules apply them, ``native_crop`` and ``opencv_crop``:
they see the same draws.

The operations and the distributions of their parameters are those of SwAV (Caron et al. 2020,
arXiv:2006.09882, appendix A), which are SimCLR's as torchvision words them, in this order: crop,
flip, colour jitter, grey, blur.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

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


Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


def rising(least: float, most: float) -> AfterValidator:
    """Of an option: two numbers from ``least`` to ``most``, the lower first."""

    def check(value: tuple[float, float]) -> tuple[float, float]:
        low, high = value
        if least <= low <= high <= most and high > 0:
            return value
        raise ValueError(f"must be two rising numbers in [{least}, {most}]")

    return AfterValidator(check)


@dataclass(frozen=True)
class ColorJitter:
    """Four changes of colour in random order, as torchvision's ColorJitter."""

    probability: Probability
    brightness: Strength  # factor from [max(0, 1 - b), 1 + b]; contrast and saturation likewise
    contrast: Strength
    saturation: Strength
    hue: Annotated[float, Field(ge=0, le=0.5)]  # shift from [-h, h] of the colour circle


@dataclass(frozen=True)
class Blur:
    """Gaussian blur."""

    probability: Probability
    sigma: Annotated[tuple[float, float], rising(0.01, 100)]  # range, pixels of the crop
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
    """Draw the parameters of one crop of an image of ``height`` x ``width`` pixels.

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
