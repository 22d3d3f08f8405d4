"""Crops by the compiled kernel (native/augment.cpp), which an installation builds when it finds a
C++ compiler. It follows Pillow's arithmetic more closely than OpenCV and takes half the time."""

from importlib.util import find_spec

import numpy as np

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.draw import CropDraw

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
# Flips change places with all of these, to the bit, and cost nothing where a crop is resized.
BLUR, HUE = OPERATIONS[pixels.gaussian_blur], OPERATIONS[pixels.hue]


def apply_crop(image: np.ndarray, draw: CropDraw) -> np.ndarray:
    """Cut one crop out of ``image`` ((H, W, 3) uint8 RGB); (height, width, 3) uint8 RGB.

    Steps that the kernel does not know are done at their place, between two of its runs.
    """
    crop, box, size = image, draw.box, draw.size
    steps, is_resized = iter(draw.steps), False
    while True:
        numbered: list[tuple[int, float | np.ndarray]] = []
        mirrored = upside_down = False
        unknown = None
        for function, value in steps:
            if function in OPERATIONS:
                operation = OPERATIONS[function]
                numbered.append((operation, _as_kernel(operation, value)))
            elif function is pixels.mirror:
                mirrored = not mirrored
            elif function is pixels.upside_down:
                upside_down = not upside_down
            else:
                unknown = function, value
                break
        if numbered or mirrored or upside_down or not is_resized:
            source, crop = np.ascontiguousarray(crop), np.empty((*size, 3), dtype=np.uint8)
            _augment.crop(source, crop, box, mirrored, upside_down, numbered)
            box, is_resized = (0, 0, *size), True
        if unknown is None:
            return crop
        function, value = unknown
        crop = function(crop, value)


def _as_kernel(operation: int, value: float | None) -> float | np.ndarray:
    """What the kernel computes with: weights of a blur, and hue as Pillow has it, in one byte."""
    if operation == BLUR:
        assert value is not None
        return pixels.gaussian23_kernel(value)
    if operation == HUE:
        assert value is not None
        return int(value * 255) / 255
    return 0.0 if value is None else value
