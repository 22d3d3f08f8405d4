"""Images of any number of channels, to be looked at."""

import numpy as np

from ssl_platform.data.decoding.pixels import COLOURS


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """(..., C) uint8 to (..., 3): of more than three channels the first three are red, green and
    blue; of fewer, the first is grey."""
    channels = pixels.shape[-1]
    if channels == COLOURS:
        return pixels
    shown = pixels[..., :COLOURS] if channels > COLOURS else pixels[..., [0, 0, 0]]
    return np.ascontiguousarray(shown)
