"""What scores may be divided by."""

from typing import Final

MIN_TEMPERATURE: Final = 1e-6  # cosines of float32 are rounded at 6e-8


def unusable_temperature(temperature: float) -> list[str]:
    """What is wrong with a temperature, in words; nothing where it can be used."""
    if temperature >= MIN_TEMPERATURE:
        return []
    if temperature > 0:
        return [
            f"temperature={temperature}: at least {MIN_TEMPERATURE}, e.g. 0.1; below, the rounding "
            "of scores would decide"
        ]
    return [f"temperature={temperature}: must be positive, e.g. 0.1"]
