"""What scores may be divided by."""

from typing import Annotated, Final

from pydantic import Field

MIN_TEMPERATURE: Final = 1e-6  # cosines of float32 are rounded at 6e-8

Temperature = Annotated[
    float,
    Field(ge=MIN_TEMPERATURE),
    "e.g. 0.1; below, the rounding of scores would decide",
]
