"""TIFFs that Pillow reads wrongly or not at all: deep, signed and float values, planes, bands.

Pillow keeps the upper 8 bits of deep colours, wraps unsigned 32-bit values, and mistakes 16-bit
planes for pixels and a 16-bit white for black. So the first page is written anew as the plainest
grey TIFF that has the same values, which OpenCV and Pillow both read as they are, and given its
meaning here.
"""

import struct
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ssl_platform.data.decoding.opencv_read import opencv_read
from ssl_platform.data.decoding.pixels import Notes, Stored, valid_orientation

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
ORIENTATION, SAMPLES, ROWS_PER_STRIP, PLANAR, PREDICTOR = 274, 277, 278, 284, 317
TILE_WIDTH, TILE_HEIGHT, SUB_IMAGES, EXTRA, FORMAT = 322, 323, 330, 338, 339
REDUCED, DNG_VERSION = 254, 50706
PLACES = (273, 279, 324, 325)  # of strips and tiles, and how long they are
LAYOUT = (
    *(WIDTH, HEIGHT, BITS, COMPRESSION, FILL_ORDER, SAMPLES, ROWS_PER_STRIP, PLANAR, PREDICTOR),
    *(TILE_WIDTH, TILE_HEIGHT, FORMAT, *PLACES),
)
SHORT, LONG = 3, 4  # types of tags
MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
CONTIGUOUS, SEPARATE = 1, 2
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha
KINDS = {1: "u", 2: "i", 3: "f"}  # sample formats
NAMES = {"u": "unsigned", "i": "signed", "f": "float"}
PACKED = 12  # bits, which Pillow unpacks


class Tiff:
    """The first page of a TIFF, by its tags.

    Raises:
        ValueError: the tags cannot be read, or it is a raw photograph, whose first page is a
            preview.
    """

    def __init__(self, data: bytes):
        self.data = data
        try:
            self.tags = _first_tags(data)
            self.width, self.height = int(self.tags[WIDTH]), int(self.tags[HEIGHT])
            self.samples = int(self.tags.get(SAMPLES, 1))
            self.bits, sample_format = self._of_all(BITS), self._of_all(FORMAT)
            self.photometric = int(self.tags.get(PHOTOMETRIC, MIN_IS_BLACK))
            is_preview = int(self.tags.get(REDUCED, 0)) & 1 and SUB_IMAGES in self.tags
        except Exception as error:  # Pillow's reader of tags raises whatever it stumbles on
            raise ValueError("a damaged TIFF: fetch it again") from error
        if data[8:10] == b"CR" or DNG_VERSION in self.tags or is_preview:
            raise ValueError("a raw photograph: develop it to JPEG or TIFF")
        if 0 in (self.bits, sample_format):
            raise ValueError("a TIFF whose bands are of different types: save it as RGB")
        self.kind = KINDS.get(sample_format, "u")
        self.orientation = valid_orientation(self.tags.get(ORIENTATION))
        self.has_more_pages = bool(self.tags.next)
        extra = self.tags.get(EXTRA, ())
        self.extra = extra if isinstance(extra, tuple) else (extra,)

    def _of_all(self, tag: int) -> int:
        """What a tag says of every sample: 1 where it is not there, 0 where they differ."""
        values = self.tags.get(tag, 1)
        values = set(values) if isinstance(values, tuple) else {values}
        return int(values.pop()) if len(values) == 1 else 0

    def __str__(self) -> str:
        bands = f"{self.samples} band{'s' if self.samples > 1 else ''}"
        return f"a TIFF of {bands} of {self.bits}-bit {NAMES[self.kind]} values"

    @property
    def is_deep(self) -> bool:
        """Whether it is to be read here: more than 8 bits, signed, or RGB by another name."""
        if self.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB) or self.bits == PACKED:
            return False
        is_rgb = self.photometric == MIN_IS_BLACK and self.samples == 3
        return self.bits > 8 or self.kind != "u" or is_rgb

    def read(self, notes: Notes) -> Stored:
        """Its values as they are stored: not turned.

        Raises:
            ValueError: it is damaged, or of a kind that no decoder here knows.
        """
        self._refuse_bands()
        values, alpha = self._values(), None
        if self._alpha is not None:
            values, alpha = self._opaque(values[..., :-1], values[..., -1])
        elif self.samples > 3:
            notes.dropped_bands, values = self.samples - 3, values[..., :3]
        if values.shape[2] == 1:
            values = values[..., 0]
        full = 2**self.bits - 1 if self.kind == "u" and self.bits <= 16 else None
        return Stored(values, full, alpha, is_inverted=self.photometric == MIN_IS_WHITE)

    @property
    def _alpha(self) -> int | None:
        """The kind of alpha that the last band is."""
        colours = 3 if self.photometric == RGB else 1
        is_alpha = self.samples == colours + 1 and self.extra[:1] in (
            (ASSOCIATED,),
            (UNASSOCIATED,),
        )
        return int(self.extra[0]) if is_alpha else None

    def _refuse_bands(self) -> None:
        is_known = self.samples in ((3, 4, 5, 6) if self.photometric == RGB else (1, 3))
        if not is_known and self._alpha is None:
            raise ValueError(
                f"{self}, none of which are said to be red, green and blue: save the three that "
                "matter as RGB"
            )

    def _values(self) -> np.ndarray:
        """(H, W, samples) values in the order of the file."""
        if self.samples > 1 and self.tags.get(PLANAR) == SEPARATE:
            values = np.stack([self._decoded(self._plane(n)) for n in range(self.samples)], axis=-1)
        elif self.samples == 1 or self.tags.get(PREDICTOR, 1) == 1:
            values = self._decoded(self._as_grey(self.samples))
        else:
            values = self._decoded(self._as_colours())
        return values.reshape(self.height, self.width, self.samples)

    def _decoded(self, tags: dict[int, Any]) -> np.ndarray:
        """All values of the file with other tags."""
        data = self._with_tags(tags)
        values = opencv_read(data)
        if values is None:  # Pillow knows more compressions
            values = self._pillow_read(data)
        size = self.height * tags[WIDTH] * tags[SAMPLES]
        if values is None or values.size != size or values.itemsize * 8 != self.bits:
            raise ValueError(
                f"{self}, damaged or saved in a way that OpenCV does not read: save it as uint16 "
                "or float32, without compression"
            )
        return values.view(f"{self.kind}{values.itemsize}")  # OpenCV 4 has no uint32

    def _pillow_read(self, data: bytes) -> np.ndarray | None:
        try:
            with Image.open(BytesIO(data), formats=("TIFF",)) as image:
                values = np.array(image)
        except (OSError, ValueError):
            return None
        if self.kind == "i" and self.bits == 16:  # which it has in 32
            return values.astype(np.int16)
        return values

    @cached_property
    def _layout(self) -> dict[int, Any]:
        return {tag: self.tags[tag] for tag in LAYOUT if tag in self.tags}

    def _as_grey(self, samples: int) -> dict[int, Any]:
        """Tags of a grey picture that is as many times as wide: without a predictor, it has the
        same values."""
        tags = self._layout | {PHOTOMETRIC: MIN_IS_BLACK, SAMPLES: 1, PLANAR: CONTIGUOUS}
        is_half = self.bits == 16 and self.kind == "f"  # which are known to neither reader
        tags |= {BITS: self.bits, FORMAT: 1 if is_half else self._of_all(FORMAT)}
        return tags | {t: tags[t] * samples for t in (WIDTH, TILE_WIDTH) if t in tags}

    def _plane(self, number: int) -> dict[int, Any]:
        tags = self._as_grey(1)
        for tag in PLACES:
            if tag in tags:
                size = len(tags[tag]) // self.samples
                tags[tag] = tags[tag][number * size : (number + 1) * size]
        return tags

    def _as_colours(self) -> dict[int, Any]:
        """Tags of an RGB picture; OpenCV would multiply colours of 8 bits by alpha."""
        if self.bits == 8 or self.samples not in (3, 4):
            raise ValueError(f"{self}: save it without a predictor")
        tags = self._layout | {PHOTOMETRIC: RGB}
        return tags | ({EXTRA: UNASSOCIATED} if self.samples == 4 else {})

    def _with_tags(self, values: dict[int, Any]) -> bytes:
        """The file with another directory of tags, behind all else."""
        order = "<" if self.data[:2] == b"II" else ">"
        start = len(self.data) + len(self.data) % 2
        end = start + 2 + 12 * len(values) + 4
        entries, beyond = b"", b""
        for tag, value in sorted(values.items()):
            numbers = value if isinstance(value, tuple) else (value,)
            kind, letter = (SHORT, "H") if max(numbers) < 2**16 else (LONG, "I")
            packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
            entries += struct.pack(f"{order}HHI", tag, kind, len(numbers))
            if len(packed) > 4:
                entries += struct.pack(f"{order}I", end + len(beyond))
                beyond += packed + bytes(len(packed) % 2)
            else:
                entries += packed.ljust(4, b"\0")
        header = self.data[:2] + struct.pack(f"{order}HI", 42, start)
        directory = struct.pack(f"{order}H", len(values)) + entries + bytes(4)
        return header + self.data[8:].ljust(start - 8, b"\0") + directory + beyond

    def _opaque(self, values: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours without the alpha that they may be multiplied by, and alpha of 8 bits."""
        white = 1 if self.kind == "f" else np.iinfo(alpha.dtype).max
        share = np.nan_to_num(alpha / white).clip(0, 1)
        if self._alpha == ASSOCIATED:
            colours = values / np.where(share > 0, share, 1)[..., None]
            if self.kind != "f":
                colours = np.rint(colours).clip(np.iinfo(values.dtype).min, white)
            values = colours.astype(values.dtype)
        return values, np.rint(255 * share).astype(np.uint8)


def _first_tags(data: bytes) -> ImageFileDirectory_v2:
    is_big = data[2:4] in (b"+\0", b"\0+")
    tags = ImageFileDirectory_v2(data[: 16 if is_big else 8])
    file = BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags
