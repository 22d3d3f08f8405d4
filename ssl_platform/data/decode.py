"""Encoded bytes to pixels."""

import os
import stat
import warnings
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image

from ssl_platform.data.dataset import UnreadableImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")  # and no other reader of Pillow's
MAX_PIXELS = 50_000_000  # 150 MB when decoded; looked up in the header, before anything is decoded
MAX_BYTES = 256 * 2**20
_JPEG_MAGIC = b"\xff\xd8\xff"


def decode(data: bytes) -> np.ndarray:
    """Decode an image in one of ``FORMATS``; (H, W, 3) uint8 RGB.

    Grey is replicated, a palette looked up, alpha dropped, 16 bits cut to the upper 8, and the
    first frame of an animation taken. EXIF orientation is ignored, as torchvision does.

    Raises:
        ValueError: empty, truncated or corrupt data, no image of a known format, or more than
            ``MAX_PIXELS``. The message is a short reason without a name.
    """
    if not data:
        raise ValueError("empty file")
    if data.startswith(_JPEG_MAGIC):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            _check_pixels(height, width)
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            # Pillow has the last word: it knows more colour spaces (CMYK) and says better why.
            pass
    return _decode_with_pillow(data)


def read_image(path: bytes) -> np.ndarray:
    """Read one file; (H, W, 3) uint8 RGB.

    Raises:
        UnreadableImage: the file cannot be opened or decoded.
    """
    try:
        return decode(_bytes_of(path))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnreadableImage(printable(path), reason) from error
    except ValueError as error:
        raise UnreadableImage(printable(path), str(error)) from error


def _bytes_of(path: bytes) -> bytes:
    """What a file holds; a pipe would be waited for, and a device may never end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes, more than the limit of {MAX_BYTES}")
    with open(path, "rb") as file:
        return file.read()


def printable(path: bytes) -> str:
    """A file name for a message: one line of text, whatever bytes the name is made of."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than the limit of {MAX_PIXELS}")


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that it cannot read, and of its own limit
        try:
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                _check_pixels(image.height, image.width)
                return np.array(_to_rgb(image))
        except Image.UnidentifiedImageError as error:
            raise ValueError("not an image") from error
        except Exception as error:  # the readers of damaged files raise whatever they stumble on
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(reason) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.array(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
