"""The compiled kernel: native/augment.cpp."""

from collections.abc import Sequence

import numpy as np

def crop(
    image: np.ndarray,
    out: np.ndarray,
    box: tuple[int, int, int, int],
    flip: bool,
    jitter: Sequence[tuple[int, float]],
    grayscale: bool,
    kernel: np.ndarray | None,
    /,
) -> None: ...
