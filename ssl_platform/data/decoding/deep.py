"""PNG, PGM, PPM and JPEG 2000 of more than 8 bits, as they were stored.

Pillow keeps the upper 8 bits of deep colours, and stretches grey to 16 bits.
"""

import cv2
import numpy as np
from PIL import Image

from ssl_platform.data.decoding.pixels import PixelOptions, Stored

UINT16_MAX = 2**16 - 1


def deep_grey(image: Image.Image, data: bytes, options: PixelOptions) -> Stored:
    """Grey of more than 8 bits that Pillow has read, of any format."""
    values = np.array(image)
    if image.mode == "F":
        return Stored(values, full=None)
    values, full = values.astype(np.uint16), UINT16_MAX
    if image.format == "PPM" and options.range is not None:
        full = pnm_maximum(data)
        values = np.rint(values * (full / UINT16_MAX)).astype(np.uint16)
    elif image.format == "JPEG2000" and options.range is not None:
        bits = jpeg2000_bits(data)
        values, full = values >> (16 - bits), 2**bits - 1
    alpha = None
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Stored(values, full, alpha)


def deep_colours(image: Image.Image, data: bytes) -> Stored | None:
    """All bits of the colours of which Pillow has kept the upper 8; None if there are no more.

    Raises:
        ValueError: there are more, and they cannot be had.
    """
    deep = deep_values(image, data)
    if deep is None:
        return None
    alpha = None
    if image.has_transparency_data:
        alpha = np.array(image.convert("RGBA"))[..., 3]
    values, full = deep
    return Stored(values[..., :3], full, alpha)


def deep_values(image: Image.Image, data: bytes) -> tuple[np.ndarray, int] | None:
    """As `deep_colours`, with transparency among the bands; also the value of white.

    Raises:
        ValueError: there are more, and they cannot be had.
    """
    full = None
    if image.format == "PNG" and data[24] == 16:
        full = UINT16_MAX
    elif image.format == "PPM" and pnm_maximum(data) > 255:
        full = pnm_maximum(data)
    elif image.format == "JPEG2000" and jpeg2000_bits(data) > 8:
        raise ValueError(
            "a JPEG 2000 of deep colours, to which data.range cannot be applied: convert it to "
            "16-bit PNG"
        )
    if full is None:
        return None
    values = _opencv_read(data)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise ValueError(
            "deep colours, to which data.range cannot be applied: convert it to 16-bit PNG"
        )
    return values, full


def _opencv_read(data: bytes) -> np.ndarray | None:
    """(H, W) or (H, W, C) values as they are stored, colours in the order red, green, blue.

    None if OpenCV cannot read them.
    """
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(before)
    if values is None or values.ndim == 2 or values.shape[2] < 3:
        return values
    return values[..., [2, 1, 0, *range(3, values.shape[2])]]


def pnm_maximum(data: bytes) -> int:
    """The value of white in a PGM or PPM file: the fourth word of its header; 1 in others."""
    lines = (line.partition(b"#")[0] for line in data[:4096].split(b"\n"))
    words = [word for line in lines for word in line.split()]
    return int(words[3]) if data[:2] in (b"P2", b"P3", b"P5", b"P6") else 1


def jpeg2000_bits(data: bytes) -> int:
    """Of the first component, by the header of the codestream."""
    start = data.index(b"\xff\x4f\xff\x51")
    return (data[start + 42] & 0x7F) + 1
