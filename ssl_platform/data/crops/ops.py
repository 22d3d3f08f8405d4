"""Ops that change the pixels of a crop, each by itself; ``geometry`` has those that move pixels.

The distributions of their parameters are torchvision's, which are those of SimCLR, SwAV (Caron et
al. 2020, arXiv:2006.09882, appendix A), BYOL and DINO.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Interval
from pydantic import Field

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.draw import Step
from ssl_platform.data.crops.ranges import Probability, Strength, rising
from ssl_platform.data.crops.streams import generator
from ssl_platform.data.decoding.pixels import COLOURS
from ssl_platform.errors import DataError, counted, kind_of
from ssl_platform.registry import CROP_OPS


class DrawnOp(ABC):
    """An op with a fixed number of random numbers, which the compiled kernel may know.

    An op of a plug-in needs none of this: it is called with a crop and a generator, see `CalledOp`.
    """

    num_uniforms: ClassVar[int]  #: random numbers of one crop

    @abstractmethod
    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        """What to do with a crop of a size; nothing if the op leaves it as it is.

        Args:
            uniforms: ``num_uniforms`` independent draws from [0, 1).
        """

    def problems(self, height: int, width: int, channels: int | None) -> list[str]:
        """Options that cannot work with crops of a size and number of channels, if it is known.

        Returns:
            Lines ``option=value: what is wrong``.
        """
        return []


class CalledOp(DrawnOp):
    """An op that is called with a crop ((H, W, C) uint8) and a ``numpy.random.Generator``.

    Args:
        op: it.
        where: what messages call it, ``ops.noise``.
    """

    num_uniforms = 2

    def __init__(self, op: Any, where: str):
        self._op, self._where = op, where

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        return [(self._apply, tuple(uniforms))]

    def _apply(self, crop: np.ndarray, seed: tuple[float, ...]) -> np.ndarray:
        shape = crop.shape
        changed: Any = self._op(crop, generator(seed))
        is_array = isinstance(changed, np.ndarray) and changed.dtype == np.uint8
        if is_array and changed.shape == shape:
            return changed
        raise DataError(
            f"{self._where}: {type(self._op).__name__} gave {kind_of(changed)} for a crop "
            f"{shape}; an op has to give a numpy array uint8 of the same shape"
        )


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(DrawnOp):
    """Left and right exchanged."""

    probability: Probability

    num_uniforms: ClassVar[int] = 1

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        return ((pixels.mirror, None),) if uniforms[0] < self.probability else ()


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class VerticalFlip(DrawnOp):
    """Top and bottom exchanged."""

    probability: Probability

    num_uniforms: ClassVar[int] = 1

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        return ((pixels.upside_down, None),) if uniforms[0] < self.probability else ()


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class ColorJitter(DrawnOp):
    """Four changes of colour in random order, as torchvision's ColorJitter."""

    probability: Probability
    brightness: Strength  # factor from [max(0, 1 - b), 1 + b]; contrast and saturation likewise
    contrast: Strength
    saturation: Strength
    hue: Annotated[float, Field(ge=0, le=0.5)]  # shift from [-h, h] of the colour circle

    num_uniforms: ClassVar[int] = 9  # whether, four strengths, four places in the order

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        if uniforms[0] >= self.probability:
            return ()
        ranges = (
            (pixels.brightness, max(0.0, 1 - self.brightness), 1 + self.brightness),
            (pixels.contrast, max(0.0, 1 - self.contrast), 1 + self.contrast),
            (pixels.saturation, max(0.0, 1 - self.saturation), 1 + self.saturation),
            (pixels.hue, -self.hue, self.hue),
        )
        drawn = [
            (order, number, (function, low + (high - low) * uniform))
            for number, ((function, low, high), uniform, order) in enumerate(
                zip(ranges, uniforms[1:5], uniforms[5:], strict=True)
            )
            if low < high
        ]
        return [step for _, _, step in sorted(drawn)]

    def problems(self, height: int, width: int, channels: int | None) -> list[str]:
        strengths = {"saturation": self.saturation, "hue": self.hue} if self.probability else {}
        return _of_colour({key: value for key, value in strengths.items() if value}, channels)


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class Grayscale(DrawnOp):
    """Three equal channels, torchvision's RandomGrayscale."""

    probability: Probability

    num_uniforms: ClassVar[int] = 1

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        return ((pixels.grayscale, None),) if uniforms[0] < self.probability else ()

    def problems(self, height: int, width: int, channels: int | None) -> list[str]:
        options = {"probability": self.probability} if self.probability else {}
        return _of_colour(options, channels)


def _of_colour(options: dict[str, float], channels: int | None) -> list[str]:
    """Lines about options that images of other than 3 channels cannot have."""
    if channels is None or channels == COLOURS:
        return []
    return [
        f"{key}={value}: needs red, green and blue, and the images have "
        f"{counted(channels, 'channel')}; set it to 0"
        for key, value in options.items()
    ]


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class GaussianBlur(DrawnOp):
    """Gaussian blur, the same strength in both directions."""

    probability: Probability
    sigma: Annotated[tuple[float, float], rising(0.01, 100)]  # range, pixels of the crop
    kind: Literal["gaussian23", "pil"]  # 23 taps as the published models, or Pillow's box blurs

    num_uniforms: ClassVar[int] = 2

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        if uniforms[0] >= self.probability:
            return ()
        low, high = self.sigma
        function = pixels.gaussian_blur if self.kind == "gaussian23" else pixels.pil_blur
        return ((function, low + (high - low) * uniforms[1]),)


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class Solarize(DrawnOp):
    """Levels from ``threshold`` on inverted, torchvision's RandomSolarize."""

    probability: Probability
    threshold: Annotated[float, Interval(ge=0, le=256), "e.g. 128"]

    num_uniforms: ClassVar[int] = 1

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        return ((pixels.solarize, self.threshold),) if uniforms[0] < self.probability else ()


@CROP_OPS.register()
@dataclass(frozen=True, kw_only=True)
class Posterize(DrawnOp):
    """The upper ``bits`` of each level, torchvision's RandomPosterize."""

    probability: Probability
    bits: Annotated[int, Interval(ge=0, le=8), "e.g. 4"]

    num_uniforms: ClassVar[int] = 1

    def draw(self, uniforms: list[float], height: int, width: int) -> Sequence[Step]:
        return ((pixels.posterize, self.bits),) if uniforms[0] < self.probability else ()
