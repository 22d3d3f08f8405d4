"""Crops by the compiled kernel (native/augment.cpp), which an installation builds when it finds a
C++ compiler. It follows Pillow's arithmetic more closely than OpenCV and takes half the time."""

from importlib.util import find_spec

import numpy as np

from ssl_platform.data.crops.augment import CropDraw
from ssl_platform.data.crops.blur import blur_pil, gaussian23_kernel

DAMAGE = ""  # why a kernel that is there cannot be loaded: of another machine, or cut off
try:
    from ssl_platform.data.crops import _augment
except ImportError as error:
    AVAILABLE = False
    if find_spec("ssl_platform.data.crops._augment"):
        DAMAGE = str(error)
else:
    AVAILABLE = True

OPERATIONS = {"brightness": 0, "contrast": 1, "saturation": 2, "hue": 3}  # as the kernel counts


def apply_crop(image: np.ndarray, draw: CropDraw, blur_kind: str) -> np.ndarray:
    """Cut one crop out of ``image`` ((H, W, 3) uint8 RGB); (size, size, 3) uint8 RGB."""
    crop = np.empty((draw.size, draw.size, 3), dtype=np.uint8)
    kernel = None
    if draw.sigma is not None and blur_kind == "gaussian23":
        kernel = gaussian23_kernel(draw.sigma)
    _augment.crop(
        np.ascontiguousarray(image),
        crop,
        (draw.top, draw.left, draw.height, draw.width),
        draw.flip,
        [(OPERATIONS[name], as_pillow(name, factor)) for name, factor in draw.jitter],
        draw.grayscale,
        kernel,
    )
    return blur_pil(crop, draw.sigma) if draw.sigma is not None and kernel is None else crop


def as_pillow(operation: str, factor: float) -> float:
    """The factor that Pillow would compute with: its hue is one byte."""
    return int(factor * 255) / 255 if operation == "hue" else factor
