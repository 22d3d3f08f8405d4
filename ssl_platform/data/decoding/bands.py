"""Numbers of channels other than three: grey, and all the bands of a file as they are stored."""

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.lib import format as npy
from PIL import Image

from ssl_platform.data.decoding.deep import deep_values
from ssl_platform.data.decoding.pixels import COLOURS, PixelOptions, Stored
from ssl_platform.errors import counted

NUMPY = b"\x93NUMPY"  # what an .npy file begins with
NPY_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
GREY_AND_ALPHA = 4  # colour type of a PNG
WITH_ALPHA = {"LA": [0, 3], "RGBA": [0, 1, 2, 3]}  # where OpenCV puts them, by Pillow's mode
NUM_CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "I;16": 1, "LA": 2, "RGBA": 4}  # of others: 3


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB to (H, W, 1): the luma of ITU-R BT.601; grey stays what it is."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]


def require_channels(found: int, options: PixelOptions) -> None:
    """Refuse a file whose bands are to be kept and are of another number.

    Raises:
        ValueError: what it has, and what to type.
    """
    if found != options.channels:
        raise ValueError(
            f"{counted(found, 'channel')} where data.channels={options.channels}; "
            f"set data.channels={found}, or leave the file out"
        )


def bands_of(image: Image.Image, data: bytes | None, options: PixelOptions) -> Stored:
    """The bands of a picture with transparency, which is one of them.

    Args:
        data: what the file holds; None where Pillow alone has seen it.

    Raises:
        ValueError: it has another number of bands than is asked for.
    """
    mode = image.mode
    if image.format == "PNG" and data is not None and data[25] == GREY_AND_ALPHA:
        mode = "LA"  # of 16 bits: Pillow makes colours of it
    require_channels(NUM_CHANNELS.get(mode, COLOURS), options)
    if options.range is not None and data is not None:
        deep = deep_values(image, data)
        if deep is not None:
            values, full = deep
            return Stored(values[..., WITH_ALPHA[mode]], full)
    values = np.array(image)
    return Stored(values if mode == image.mode else values[..., WITH_ALPHA[mode]], full=255)


def read_npy(data: bytes, options: PixelOptions) -> Stored:
    """The values of an .npy file, (H, W) or (H, W, C).

    Raises:
        ValueError: it is damaged, no picture, or of other channels than are asked for.
    """
    stream = BytesIO(data)
    values: Any
    try:
        shape, is_fortran, kind = NPY_HEADERS[npy.read_magic(stream)](stream)
        values = np.frombuffer(data, kind, offset=stream.tell())
        values = values.reshape(tuple(shape), order="F" if is_fortran else "C")
    except Exception as error:
        raise ValueError("a damaged .npy file, or one of no plain numbers") from error
    if values.ndim not in (2, 3) or kind.kind not in "uif" or not values.size:
        raise ValueError(
            f"an array {values.shape} of {kind}: an image is (H, W, channels) or (H, W) of "
            "uint8, uint16 or float32"
        )
    values = values.astype(kind.newbyteorder("="), order="C", copy=False)
    channels = values.shape[2] if values.ndim == 3 else 1
    if channels != options.channels and values.ndim == 3 and len(values) == options.channels:
        raise ValueError(
            f"an array {values.shape}, where (H, W, channels) is wanted: save it as "
            "array.transpose(1, 2, 0)"
        )
    if options.keeps_bands or channels not in (1, COLOURS):
        require_channels(channels, options)
    full = np.iinfo(kind).max if kind.kind == "u" and kind.itemsize <= 2 else None
    return Stored(values[..., 0] if channels == 1 and values.ndim == 3 else values, full)
