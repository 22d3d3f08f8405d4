"""The compiled kernel: native/augment.cpp."""

from collections.abc import Sequence

import numpy as np

def crop(
    image: np.ndarray,
    out: np.ndarray,
    box: tuple[int, int, int, int],
    mirrored: bool,
    upside_down: bool,
    steps: Sequence[tuple[int, float | np.ndarray]],
    /,
) -> None: ...
