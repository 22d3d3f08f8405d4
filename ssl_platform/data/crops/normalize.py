"""From grey levels to what a network sees."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field


def _three(values: list[float]) -> list[float]:
    if len(values) != 3:
        raise ValueError("needs three numbers, for red, green and blue")
    return values


@dataclass(frozen=True)
class Normalize:
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    mean: Annotated[list[float], AfterValidator(_three)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(_three)]

    @cached_property
    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (3,) float32: a level of 0 to 255 times the first, plus the second."""
        scale = 1 / (255 * np.array(self.std, np.float64))
        shift = -255 * np.array(self.mean, np.float64) * scale
        return scale.astype(np.float32), shift.astype(np.float32)
