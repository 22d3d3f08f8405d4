"""TIFFs of any kind of values, as other programs write them: one strip a plane, not compressed."""

import struct

import numpy as np

SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
MIN_IS_WHITE, MIN_IS_BLACK, RGB, CMYK = 0, 1, 2, 5


def tiff(
    values: np.ndarray,
    photometric: int | None = None,
    *,
    planar: bool = False,
    order: str = "<",
    tags: dict[int, int | tuple[int, ...]] | None = None,
    pages: int = 1,
) -> bytes:
    """(H, W) or (H, W, C) values as a TIFF; ``tags`` are added, ``pages`` repeats it."""
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
