"""From grey levels to what a network sees."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

AUTO = "auto"  # in place of the numbers: they are measured


@dataclass(frozen=True)
class Normalize:
    """Mean and standard deviation of each channel, for values in [0, 1].

    Raises:
        ValueError: they are not as many means as standard deviations.
    """

    mean: list[float]  # both are empty until they have been measured
    std: list[Annotated[float, Field(gt=0)]]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations; one of each for "
                "each channel"
            )

    @cached_property
    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (C,) float32: a level of 0 to 255 times the first, plus the second."""
        scale = 1 / (255 * np.array(self.std, np.float64))
        shift = -255 * np.array(self.mean, np.float64) * scale
        return scale.astype(np.float32), shift.astype(np.float32)


def _or_auto(value: Any) -> Any:
    return {"mean": [], "std": []} if value == AUTO else value


NormalizeOrAuto = Annotated[Normalize, BeforeValidator(_or_auto)]
