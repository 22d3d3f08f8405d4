"""Multi-crop (Caron et al. 2020, arXiv:2006.09882, section 3.2): few large and many small crops."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from ssl_platform import distributed
from ssl_platform.data.crops import native_crop, opencv_crop
from ssl_platform.data.crops.augment import (
    NUM_UNIFORMS,
    Blur,
    ColorJitter,
    CropDraw,
    CropRule,
    Probability,
    draw_crop,
    rising,
)
from ssl_platform.registry import TRANSFORMS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropGroup:
    """Crops of one size and scale."""

    size: Annotated[int, Field(ge=1)]  # side, pixels
    count: Annotated[int, Field(ge=0)]  # per image; 0 turns the group off
    # range of a crop's area, as a part of the image's
    scale: Annotated[tuple[float, float], rising(0, 1)]


@TRANSFORMS.register()
class MultiCrop:
    """Random crops of an image, independent of each other, each augmented by itself.

    Args:
        crops: groups by name. Crops come in the order of the groups, except that groups of equal
            size are put together.
        ratio: range of a crop's width over its height, drawn on a logarithmic scale.
        flip: probability of a horizontal flip.
        jitter: colour jitter.
        grayscale: probability of becoming grey.
        blur: Gaussian blur.

    Raises:
        ValueError: no crop at all.
    """

    def __init__(
        self,
        *,
        crops: dict[str, CropGroup],
        ratio: Annotated[tuple[float, float], rising(0.01, 100)],
        flip: Probability,
        jitter: ColorJitter,
        grayscale: Probability,
        blur: Blur,
    ):
        if not any(group.count for group in crops.values()):
            raise ValueError(
                f"crops={{{', '.join(crops)}}}: at least one group needs count 1 or more"
            )
        sizes = list(dict.fromkeys(group.size for group in crops.values()))
        self._apply, self.implementation, description = _implementation()
        if distributed.rank() == 0:
            logger.info("crops: %s", description)
        self._blur_kind = blur.kind
        self._rules = [
            CropRule(group.size, group.scale, ratio, flip, jitter, grayscale, blur)
            for group in sorted(crops.values(), key=lambda group: sizes.index(group.size))
            for _ in range(group.count)
        ]

    @property
    def num_crops(self) -> int:
        """Crops of each image."""
        return len(self._rules)

    @property
    def crop_sizes(self) -> list[int]:
        """Side of each crop, in pixels; equal sizes are adjacent."""
        return [rule.size for rule in self._rules]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Crops of ``image`` ((H, W, 3) uint8 RGB): one (size, size, 3) uint8 RGB array each."""
        height, width, _ = image.shape
        draws = self.draw(height, width, rng)
        return [self._apply(image, draw, self._blur_kind) for draw in draws]

    def draw(self, height: int, width: int, rng: np.random.Generator) -> list[CropDraw]:
        """The random parameters of every crop of an image of ``height`` x ``width`` pixels."""
        uniforms = rng.random((self.num_crops, NUM_UNIFORMS)).tolist()
        return [
            draw_crop(height, width, rule, row)
            for rule, row in zip(self._rules, uniforms, strict=True)
        ]


def _implementation() -> tuple[Callable[[np.ndarray, CropDraw, str], np.ndarray], str, str]:
    """What cuts and augments a crop here, its name, and what the log says of it."""
    if native_crop.AVAILABLE:
        return native_crop.apply_crop, "compiled kernel", "compiled kernel"
    why = (
        f"which cannot be loaded ({native_crop.DAMAGE}); build it anew"
        if native_crop.DAMAGE
        else "which an installation builds where it finds a C++ compiler"
    )
    return opencv_crop.apply_crop, "OpenCV", f"OpenCV, slower than the compiled kernel, {why}"
