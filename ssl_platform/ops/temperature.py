"""What scores may be divided by."""

from typing import Annotated, Final

from annotated_types import Ge

MIN_TEMPERATURE: Final = 1e-6  # cosines of float32 are rounded at 6e-8

Temperature = Annotated[
    float,
    Ge(MIN_TEMPERATURE),
    "e.g. 0.1; below, the rounding of scores would decide",
]
