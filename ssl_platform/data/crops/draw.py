"""What is drawn for one crop: a box of the image, and the steps that change its pixels.

Two modules apply it, ``native_crop`` and ``opencv_crop``: they see the same draws.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

MAX_ATTEMPTS = 10  # at a box that fits into the image, as in torchvision
NUM_BOX_UNIFORMS = 2 * MAX_ATTEMPTS + 2

#: a function of ``pixels`` or of an op, and what it is called with beside the crop
Step = tuple[Callable[[np.ndarray, Any], np.ndarray], Any]
Box = tuple[int, int, int, int]  # top, left, height, width; pixels of the image


class CropDraw(NamedTuple):
    """All that is random about one crop."""

    size: tuple[int, int]  # height and width of the result, pixels
    box: Box
    steps: Sequence[Step]  # in the order of application


class Drawing(Protocol):
    """What draws the steps of an op."""

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]: ...


@dataclass(frozen=True)
class CropRule:
    """What the random parameters of one crop are drawn from."""

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    ops: Sequence[Drawing]

    def draw(self, height: int, width: int, uniforms: Iterator[list[float]]) -> CropDraw:
        """Draw the parameters of one crop of an image of ``height`` x ``width`` pixels.

        Args:
            uniforms: independent draws from [0, 1): ``NUM_BOX_UNIFORMS``, then those of each op.
        """
        box = draw_box(height, width, self.scale, self.ratio, next(uniforms))
        steps: list[Step] = []
        for op in self.ops:
            steps += op.draw(next(uniforms), *self.size)
        return CropDraw(self.size, box, steps)


def draw_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    uniforms: list[float],
) -> Box:
    """A part of an image: torchvision's RandomResizedCrop, its fallback included.

    Args:
        scale: range of its area, as a part of the image's.
        ratio: range of its width over its height, drawn on a logarithmic scale.
        uniforms: ``NUM_BOX_UNIFORMS`` draws from [0, 1).
    """
    for box_width, box_height in drawn_sides(height * width, scale, ratio, uniforms):
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(uniforms[-2] * (height - box_height + 1))
            left = int(uniforms[-1] * (width - box_width + 1))
            return top, left, box_height, box_width
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def drawn_sides(
    area: int, scale: tuple[float, float], ratio: tuple[float, float], uniforms: list[float]
) -> Iterator[tuple[int, int]]:
    """``MAX_ATTEMPTS`` pairs of sides of a box, in pixels, which may be larger than the image.

    Args:
        area: of the image.
        scale: range of the box's area, as a part of it.
        ratio: range of the first side over the second, drawn on a logarithmic scale.
        uniforms: draws from [0, 1), of which two for each attempt are used.
    """
    low, high = scale
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(MAX_ATTEMPTS):
        drawn = area * (low + (high - low) * uniforms[attempt])
        aspect = math.exp(log_low + (log_high - log_low) * uniforms[MAX_ATTEMPTS + attempt])
        yield round(math.sqrt(drawn * aspect)), round(math.sqrt(drawn / aspect))
