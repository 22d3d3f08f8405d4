"""From grey levels to what a network sees."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Normalize:
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{name}={values}: must be three numbers, for R, G and B")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std={self.std}: must be above 0")

    @cached_property
    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (3,) float32: a level of 0 to 255 times the first, plus the second."""
        scale = 1 / (255 * np.array(self.std, np.float64))
        shift = -255 * np.array(self.mean, np.float64) * scale
        return scale.astype(np.float32), shift.astype(np.float32)
