"""Pictures as files of every kind, among them TIFFs and PNGs as other programs write them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
MIN_IS_WHITE, MIN_IS_BLACK, RGB, CMYK = 0, 1, 2, 5


HEIGHT, WIDTH = 24, 36


def picture() -> np.ndarray:
    """(H, W, 3) uint8: smooth, its corners of other colours, so that turns and inversions show."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([60 + 3 * x, 50 + 5 * y, 200 - 2 * x - y], axis=-1).astype(np.uint8)
    pixels[:8, :8], pixels[:8, -8:], pixels[-8:, :8] = (230, 30, 30), (30, 200, 40), (30, 40, 220)
    return pixels


PIXELS = picture()
GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))
SHOWN_GREY = np.repeat(GREY[..., None], 3, axis=2)


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(values: np.ndarray, extra: bytes = b"") -> bytes:
    """(H, W) grey, or (H, W, C) colours, of 16 bits."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    values: np.ndarray,
    photometric: int | None = None,
    *,
    planar: bool = False,
    order: str = "<",
    tags: dict[int, int | tuple[int, ...]] | None = None,
    pages: int = 1,
) -> bytes:
    """(H, W) or (H, W, C) values as a TIFF of one strip a plane, not compressed.

    ``tags`` are added, ``pages`` repeats it.
    """
    bands = 1 if values.ndim == 2 else values.shape[2]
    if photometric is None:
        photometric = MIN_IS_BLACK if bands < 3 else RGB
    stored = values.transpose(2, 0, 1) if planar else values
    body = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder(order))).tobytes()
    strips = bands if planar else 1
    sizes = [len(body) // strips] * strips
    data = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(body)) + body
    entries = {
        256: values.shape[1],
        257: values.shape[0],
        258: (8 * values.itemsize,) * bands,
        259: 1,
        262: photometric,
        273: tuple(8 + number * sizes[0] for number in range(strips)),
        277: bands,
        278: values.shape[0],
        279: tuple(sizes),
        284: 2 if planar else 1,
        339: (SAMPLE_FORMATS[values.dtype.kind],) * bands,
        **(tags or {}),
    }
    for page in range(pages):
        data += _directory(entries, len(data), order, is_last=page == pages - 1)
    return data


def _directory(
    entries: dict[int, int | tuple[int, ...]], start: int, order: str, *, is_last: bool
) -> bytes:
    end = start + 2 + 12 * len(entries) + 4
    table, beyond = b"", b""
    for tag, value in sorted(entries.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        table += struct.pack(f"{order}HHI", tag, 4, len(numbers))
        if len(numbers) == 1:
            table += packed
        else:
            table += struct.pack(f"{order}I", end + len(beyond))
            beyond += packed
    following = 0 if is_last else end + len(beyond)
    count = struct.pack(f"{order}H", len(entries))
    return count + table + struct.pack(f"{order}I", following) + beyond
