"""Encoded bytes to pixels."""

import os
import warnings
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image

from ssl_platform.data.dataset import UnreadableImage

_JPEG_MAGIC = b"\xff\xd8\xff"


def decode(data: bytes) -> np.ndarray:
    """Decode a image in any format that Pillow knows; (H, W, 3) uint8 RGB.

    Grey is replicated, a palette looked up, alpha dropped, 16 bits cut to the upper 8. EXIF
    orientation is ignored, as torchvision does.

    Raises:
        ValueError: empty, truncated or corrupt data, no image at all, or more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``. The message is a short reason without a name.
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
        with open(path, "rb") as file:
            return decode(file.read())
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnreadableImage(printable(path), reason) from error
    except ValueError as error:
        raise UnreadableImage(printable(path), str(error)) from error


def printable(path: bytes) -> str:
    """A file name for a message: one line of text, whatever bytes the name is made of."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _check_pixels(height: int, width: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise ValueError(f"{width} x {height} pixels, more than the limit of {limit}")


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        # Pillow warns from the limit on and refuses only at twice the limit.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(BytesIO(data)) as image:
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
