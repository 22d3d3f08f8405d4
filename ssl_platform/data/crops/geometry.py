"""Ops that move the pixels of a crop, or cover some."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval, MinLen
from PIL import Image

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.draw import MAX_ATTEMPTS, Step, drawn_sides
from ssl_platform.data.crops.ops import DrawnOp
from ssl_platform.data.crops.ranges import Fill, FillOrNoise, Probability, rising
from ssl_platform.registry import CROP_OPS

HALF_TURN = 2  # quarters


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class QuarterTurns(DrawnOp):
    """Turned anticlockwise by a multiple of 90 degrees."""

    probability: Probability
    # quarters, one of them drawn: [1, 2, 3] is any; a crop that is no square has [2]
    turns: Annotated[list[Annotated[int, Interval(ge=1, le=3)]], MinLen(1)]

    num_uniforms: ClassVar[int] = 2

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        if uniforms[0] >= self.probability:
            return ()
        return ((pixels.quarter_turns, self.turns[int(uniforms[1] * len(self.turns))]),)

    def problems(self, height: int, width: int, channels: int | None) -> list[str]:
        if height == width or set(self.turns) == {HALF_TURN}:
            return []
        return [
            f"turns={self.turns}: would make a crop of {height} x {width} one of {width} x "
            f"{height}; use [{HALF_TURN}], or crops of equal sides"
        ]


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class Rotation(DrawnOp):
    """Turned about the middle, torchvision's RandomRotation."""

    probability: Probability
    degrees: Annotated[tuple[float, float], rising(-360, 360, zero=True)]  # anticlockwise
    interpolation: Literal["bilinear", "nearest"]
    fill: Fill  # of what comes into sight

    num_uniforms: ClassVar[int] = 2

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        if uniforms[0] >= self.probability:
            return ()
        low, high = self.degrees
        resampling = Image.Resampling[self.interpolation.upper()]
        angle = low + (high - low) * uniforms[1]
        return ((pixels.rotate, (angle, resampling, self.fill)),)

    def problems(self, height: int, width: int, channels: int | None) -> list[str]:
        return _of_fill(self.fill, channels)


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class Erasing(DrawnOp):
    """A box of the crop filled, torchvision's RandomErasing on grey levels."""

    probability: Probability
    scale: Annotated[tuple[float, float], rising(0, 1)]  # range of its area, part of the crop's
    ratio: Annotated[tuple[float, float], rising(0.01, 100)]  # range of its height over its width
    fill: FillOrNoise

    num_uniforms: ClassVar[int] = 2 * MAX_ATTEMPTS + 5

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        whether, top, left, *seed = uniforms[-5:]
        if whether >= self.probability:
            return ()
        sides = drawn_sides(height * width, self.scale, self.ratio, uniforms)
        for box_height, box_width in sides:
            if box_height < height and box_width < width:
                fill = tuple(seed) if self.fill == "noise" else self.fill
                place = int(top * (height - box_height + 1)), int(left * (width - box_width + 1))
                return ((pixels.erase, (*place, box_height, box_width, fill)),)
        return ()

    def problems(self, height: int, width: int, channels: int | None) -> list[str]:
        return _of_fill(self.fill, channels)


def _of_fill(fill: int | list[int] | str, channels: int | None) -> list[str]:
    if channels is None or not isinstance(fill, list) or len(fill) == channels:
        return []
    return [f"fill={fill}: one level, or one for each channel of the images, which have {channels}"]
