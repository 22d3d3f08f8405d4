"""Sizes of images: a side in pixels, or height and width where they differ."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

ImageSize = int | tuple[int, int]


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Both sides of a size."""
    if isinstance(size, int | Integral):
        return int(size), int(size)
    height, width = size
    return height, width


def is_image_size(size: Any) -> bool:
    """Whether this is a whole number from 1 on, or two of them."""
    sides = size if isinstance(size, list | tuple) and len(size) == 2 else [size]
    return all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 1 for s in sides)


def in_words(size: int | Sequence[int]) -> str:
    """``96 x 224``, height first."""
    return " x ".join(map(str, height_and_width(size)))
