"""Crops by the compiled kernel (native/augment.cpp), which an installation builds when it finds a
C++ compiler. It follows Pillow's arithmetic more closely than OpenCV and takes half the time."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby

import numpy as np

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.draw import Box, CropDraw, Step

DAMAGE = ""  # why a kernel that is there cannot be loaded: of another machine, or cut off
try:
    from ssl_platform.data.crops import _augment
except ImportError as error:
    AVAILABLE = False
    if find_spec("ssl_platform.data.crops._augment"):
        DAMAGE = str(error)
else:
    AVAILABLE = True

OPERATIONS = {  # as the kernel counts
    pixels.brightness: 0,
    pixels.contrast: 1,
    pixels.saturation: 2,
    pixels.hue: 3,
    pixels.grayscale: 4,
    pixels.solarize: 5,
    pixels.posterize: 6,
    pixels.gaussian_blur: 7,
}
# They change places with all of these, to the bit, and cost nothing where the crop is resized.
FLIPS = (pixels.mirror, pixels.upside_down)
BLUR = OPERATIONS[pixels.gaussian_blur]


def apply_crop(image: np.ndarray, draw: CropDraw) -> np.ndarray:
    """Cut one crop out of ``image`` ((H, W, 3) uint8 RGB); (height, width, 3) uint8 RGB.

    Steps that the kernel does not know are done at their place, between two of its runs.
    """
    runs = [(known, list(run)) for known, run in groupby(draw.steps, key=_is_known)]
    first = runs.pop(0)[1] if runs and runs[0][0] else []
    crop = _fused(image, draw.box, draw.size, first)
    for known, run in runs:
        if known:
            crop = _fused(crop, (0, 0, *draw.size), draw.size, run)
            continue
        for function, value in run:
            crop = function(crop, value)
    return crop


def _is_known(step: Step) -> bool:
    return step[0] in OPERATIONS or step[0] in FLIPS


def _fused(image: np.ndarray, box: Box, size: tuple[int, int], steps: Sequence[Step]) -> np.ndarray:
    """A crop with some steps that the kernel knows, in one call."""
    crop = np.empty((*size, 3), dtype=np.uint8)
    functions = [function for function, _ in steps]
    mirrored, upside_down = (functions.count(flip) % 2 == 1 for flip in FLIPS)
    numbered = [
        (OPERATIONS[function], _as_kernel(OPERATIONS[function], value))
        for function, value in steps
        if function in OPERATIONS
    ]
    _augment.crop(np.ascontiguousarray(image), crop, box, mirrored, upside_down, numbered)
    return crop


def _as_kernel(operation: int, value: float | None) -> float | np.ndarray:
    """What the kernel computes with: weights of a blur, and hue as Pillow has it, in one byte."""
    if value is None:
        return 0.0
    if operation == BLUR:
        return pixels.gaussian23_kernel(value)
    return int(value * 255) / 255 if operation == OPERATIONS[pixels.hue] else value
