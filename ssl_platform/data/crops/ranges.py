"""Types of options of crops, with their ranges."""

from collections.abc import Sequence
from numbers import Integral
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


def rising(least: float, most: float, *, zero: bool = False) -> AfterValidator:
    """Of an option: two numbers from ``least`` to ``most``, the lower first.

    Args:
        zero: whether both may be 0 or less.
    """

    def check(value: tuple[float, float]) -> tuple[float, float]:
        low, high = value
        if least <= low <= high <= most and (high > 0 or zero):
            return value
        raise ValueError(f"must be two rising numbers in [{least}, {most}]")

    return AfterValidator(check)


def _is_whole(value: Any, least: int, most: float = float("inf")) -> bool:
    return (
        isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most
    )


def _side_or_both(value: Any) -> Any:
    many = isinstance(value, Sequence) and not isinstance(value, str)
    sides = list(value) if many else [value, value]
    if len(sides) == 2 and all(_is_whole(side, 1) for side in sides):
        return tuple(map(int, sides)) if many else int(value)
    raise ValueError("at least 1 pixel, or [height, width]")


def _levels(value: Any) -> Any:
    levels = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(levels) and all(_is_whole(level, 0, 255) for level in levels):
        return value
    raise ValueError("a level from 0 to 255, or a list with one for each channel")


def _levels_or_noise(value: Any) -> Any:
    if value == "noise":
        return value
    try:
        return _levels(value)
    except ValueError as error:
        raise ValueError(f"{error}, or noise") from None


#: a side in pixels, or height and width
Size = Annotated[int | tuple[int, int], BeforeValidator(_side_or_both)]
#: a grey level, or one for each channel
Fill = Annotated[int | list[int], BeforeValidator(_levels)]
FillOrNoise = Annotated[int | list[int] | Literal["noise"], BeforeValidator(_levels_or_noise)]
