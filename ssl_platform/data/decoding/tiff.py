"""TIFFs that Pillow reads wrongly or not at all: deep, signed and float values, planes, bands.

Pillow keeps the upper 8 bits of deep colours, wraps unsigned 32-bit values, and mistakes 16-bit
planes for pixels and a 16-bit white for black.
"""

import logging
from io import BytesIO
from typing import Any

import numpy as np

from ssl_platform.data.decoding.pixels import Notes, Stored, valid_orientation
from ssl_platform.errors import counted

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PHOTOMETRIC, ORIENTATION, SUB_IMAGES, DNG_VERSION = 262, 274, 330, 50706  # tags
MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2  # photometric interpretations
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha
KINDS = {1: "u", 2: "i", 3: "f"}  # sample formats
NAMES = {"u": "unsigned", "i": "signed", "f": "float"}
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it does not name the file


class Tiff:
    """The first page of a TIFF, by its tags.

    Raises:
        ValueError: the tags cannot be read, or it is a raw photograph, whose first page is a
            preview.
    """

    def __init__(self, data: bytes):
        from tifffile import TiffFile  # a fifth of a second that other images need not wait for

        try:
            file = TiffFile(BytesIO(data))
            self._pages = file.pages
            page = file.pages.first
            self.width, self.height = page.imagewidth, page.imagelength
            self.has_more_pages = len(file.pages) > 1
            self.photometric = int(page.tags.valueof(PHOTOMETRIC, MIN_IS_BLACK))
            if not self.width * self.height:
                raise ValueError("no pixels")
        except Exception as error:  # of damaged tags, the reader raises errors of any kind
            raise ValueError("a damaged TIFF: fetch it again") from error
        is_preview = page.is_reduced and SUB_IMAGES in page.tags
        if data[8:10] == b"CR" or DNG_VERSION in page.tags or is_preview:
            raise ValueError("a raw photograph: develop it to JPEG or TIFF")
        if isinstance(page.bitspersample, tuple) or isinstance(page.sampleformat, tuple):
            raise ValueError("a TIFF whose bands are of different types: save it as RGB")
        self.samples, self.bits = page.samplesperpixel, page.bitspersample
        self.kind = KINDS.get(page.sampleformat, "u")
        self.orientation = valid_orientation(page.tags.valueof(ORIENTATION))
        self.extra = tuple(map(int, page.extrasamples))

    def __str__(self) -> str:
        bands = counted(self.samples, "band")
        return f"a TIFF of {bands} of {self.bits}-bit {NAMES[self.kind]} values"

    @property
    def is_deep(self) -> bool:
        """Whether it is to be read here: more than 8 bits, signed, or RGB by another name."""
        if self.photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
            return False
        is_rgb = self.photometric == MIN_IS_BLACK and self.samples == 3
        return self.bits > 8 or self.kind != "u" or is_rgb

    def read(self, notes: Notes) -> Stored:
        """Its values as they are stored: not turned.

        Raises:
            ValueError: it is damaged, or of a kind that no decoder here knows.
        """
        self._refuse_bands()
        values, alpha = self._values(self._pages[0]), None
        if self._alpha is not None:
            values, alpha = self._opaque(values[..., :-1], values[..., -1])
        elif self.samples > 3:
            notes.dropped_bands, values = self.samples - 3, values[..., :3]
        if values.shape[2] == 1:
            values = values[..., 0]
        full = 2**self.bits - 1 if self.kind == "u" and self.bits <= 16 else None
        return Stored(values, full, alpha, is_inverted=self.photometric == MIN_IS_WHITE)

    def read_bands(self, channels: int) -> Stored:
        """All its bands, transparency among them; of as many pages, a band of each.

        Raises:
            ValueError: there are more or fewer, or see `read`.
        """
        pages = list(self._pages) if self.has_pages_of_bands(channels) else [self._pages[0]]
        values = np.concatenate([self._values(page) for page in pages], axis=2)
        full = 2**self.bits - 1 if self.kind == "u" and self.bits <= 16 else None
        if self.bits < 8:
            values = values.astype(np.uint16)
        return Stored(values, full, is_inverted=self.photometric == MIN_IS_WHITE)

    def has_pages_of_bands(self, channels: int) -> bool:
        """Whether each page is one of so many bands: microscopes write images so."""
        return self.samples == 1 and len(self._pages) == channels

    @property
    def _alpha(self) -> int | None:
        """The kind of alpha that the last band is."""
        colours = 3 if self.photometric == RGB else 1
        is_alpha = self.samples == colours + 1 and self.extra[:1] in (
            (ASSOCIATED,),
            (UNASSOCIATED,),
        )
        return self.extra[0] if is_alpha else None

    def _refuse_bands(self) -> None:
        is_known = self.samples in ((3, 4, 5, 6) if self.photometric == RGB else (1, 3))
        if not is_known and self._alpha is None:
            raise ValueError(
                f"{self}, none of which are said to be red, green and blue: save the three that "
                f"matter as RGB, or keep all by data.channels={self.samples}"
            )

    def _values(self, page: Any) -> np.ndarray:
        """(H, W, samples) values in the order of the file."""
        try:
            # (planes, 1, H, W, samples of a plane)
            stored = page.asarray(squeeze=False, maxworkers=1)
            values = np.moveaxis(stored[:, 0], 0, -1).reshape(self.height, self.width, self.samples)
            is_whole = values.dtype.kind == self.kind and 0 not in page.databytecounts
        except Exception:  # whatever it is: it is not for the reader of a log
            is_whole = False
        if not is_whole:  # tifffile fills what is missing with zeros
            raise ValueError(
                f"{self}, damaged or saved in a way that tifffile does not read: save it as uint16 "
                "or float32, without compression"
            )
        return values

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
