"""Pictures inside of a page: thumbnails on one sheet, and single images."""

import math
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ssl_platform.data.shown import as_rgb

LEAST_SIDE = 96  # pixels of an image that is shown alone
LARGEST_SIDE = 192  # of such an image, as it is kept
PHOTOGRAPH = 64 * 64  # pixels from which JPEG is used, whose blocks would be seen in smaller ones
PAPER = 255  # between the pictures of a sheet


@dataclass(frozen=True)
class Picture:
    """An image to be shown alone.

    Attributes:
        uri: ``data:image/...``.
        width, height: of the box that it is shown in, pixels; whole multiples of a small image's.
        label: what is said below it.
    """

    uri: str
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class Sprite:
    """Thumbnails of one size on one sheet, row after row.

    Attributes:
        uri: of the sheet.
        columns, rows: thumbnails in a row, and rows.
        width, height: of a thumbnail, pixels.
    """

    uri: str
    columns: int
    rows: int
    width: int
    height: int


def picture(pixels: np.ndarray, label: str) -> Picture:
    """An image, (H, W, C) uint8, as large as it is looked at.

    The shorter side of a small image is shown with at least `LEAST_SIDE` pixels, by a whole factor,
    so that its own pixels are seen. A large one is made smaller.
    """
    image = Image.fromarray(as_rgb(pixels))
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    factor = max(1, math.ceil(LEAST_SIDE / min(image.size)))
    factor = min(factor, max(1, 2 * LARGEST_SIDE // max(image.size)))  # of a strip
    return Picture(data_uri(image), image.width * factor, image.height * factor, label)


def sprite(thumbnails: np.ndarray) -> Sprite:
    """(N, h, w, 3) uint8 thumbnails on one sheet."""
    columns = max(1, math.isqrt(max(1, len(thumbnails)) - 1) + 1)
    sheet = grid(thumbnails, columns, gap=0)
    height, width = thumbnails.shape[1:3]
    rows = sheet.shape[0] // height
    return Sprite(
        data_uri(Image.fromarray(sheet), is_photograph=True), columns, rows, width, height
    )


def grid(images: np.ndarray, columns: int, *, gap: int) -> np.ndarray:
    """(N, h, w, 3) uint8 images beside and below each other, with so many pixels between them."""
    number, height, width, channels = images.shape
    rows = max(1, -(-number // columns))
    cells = np.full((rows * columns, height + gap, width + gap, channels), PAPER, np.uint8)
    cells[:number, :height, :width] = images
    cells = cells.reshape(rows, columns, height + gap, width + gap, channels)
    return cells.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels)


def square(images: np.ndarray) -> np.ndarray:
    """(N, h, w, 3) images in the middle of black squares."""
    height, width = images.shape[1:3]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    around = ((0, 0), (top, side - height - top), (left, side - width - left), (0, 0))
    return np.pad(images, around)


def data_uri(image: Image.Image, *, is_photograph: bool | None = None) -> str:
    """An image as an address that holds it."""
    if is_photograph is None:
        is_photograph = image.width * image.height >= PHOTOGRAPH
    file = BytesIO()
    if is_photograph:
        # colours at full resolution: those of small images run into each other otherwise
        image.save(file, "JPEG", quality=85, subsampling=0)
    else:
        image.save(file, "PNG")
    kind = "jpeg" if is_photograph else "png"
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
