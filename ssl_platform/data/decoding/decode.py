"""Encoded bytes to pixels."""

import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.data.decoding.bands import (
    NUMPY,
    bands_of,
    read_npy,
    require_channels,
    to_grey,
)
from ssl_platform.data.decoding.deep import deep_colours, deep_grey
from ssl_platform.data.decoding.pixels import (
    COLOURS,
    GREY,
    INVERSE,
    UPRIGHT,
    Notes,
    PixelOptions,
    Stored,
    exif_orientation,
    in_8_bits,
    over_background,
    to_rgb,
    turned,
)
from ssl_platform.data.decoding.signatures import JPEG, jpeg_segments, what_is
from ssl_platform.data.decoding.tiff import STARTS as TIFF_STARTS
from ssl_platform.data.decoding.tiff import Tiff

FORMATS = (
    "JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000", "HEIF",
)  # fmt: skip # and no other reader of Pillow's; the last with pillow-heif
PNG = b"\x89PNG\r\n\x1a\n"
KEPT_CHUNKS = (b"tRNS", b"eXIf", b"gAMA")  # of a PNG, beside those without which it is none
EXIF, APP1 = b"Exif\0\0", 0xE1
# between the last row and the end, as some cameras leave them: nothing is missing
TOO_MANY = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
FEW = 0.01  # of the file
MAX_DEEP_BYTES = 16  # of a pixel, if there are as many as may be: four floats
DEFAULT = PixelOptions()
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it says of files does not name them


def decode(data: bytes, options: PixelOptions = DEFAULT, notes: Notes | None = None) -> np.ndarray:
    """Decode an image in one of ``FORMATS``, or an array of numpy; (H, W, C) uint8.

    `PixelOptions` says what C is. Where RGB is asked for, grey is replicated, a palette looked up,
    and the first page or frame taken.

    Args:
        data: what a file holds.
        options: of all else that has to be decided.
        notes: what is unusual about it is written there.

    Raises:
        ValueError: empty, truncated or corrupt data, no image of a known format, or one that the
            options refuse. The message is a short reason without a name.
    """
    notes = notes or Notes()
    if not data:
        raise ValueError("empty file")
    if options.keeps_bands or data.startswith(NUMPY):
        return _decode_with_pillow(data, options, notes)
    is_grey, damage = options.channels == GREY, None
    if data.startswith(JPEG):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            pass  # Pillow decides: it knows more colour spaces, and its reasons are clearer
        else:
            _check_pixels(height, width, options)
            try:
                pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY" if is_grey else "RGB")
                is_asked = options.orientation == "apply" or notes.thorough
                orientation = _orientation_of_jpeg(data) if is_asked else UPRIGHT
                return _upright(pixels, orientation, UPRIGHT, options, notes)
            except ValueError as error:
                damage = _damage(str(error), len(data))
    pixels = _decode_with_pillow(data, options, notes)
    if damage and options.corrupt == "refuse":
        raise ValueError(f"{damage}; data.corrupt=use takes it as it is")
    notes.damage = damage
    return to_grey(pixels) if is_grey else pixels


def read_file(
    path: bytes, options: PixelOptions = DEFAULT, notes: Notes | None = None
) -> np.ndarray:
    """Read one file, see `decode`; (H, W, C) uint8.

    Raises:
        UnreadableImage: the file cannot be opened or decoded.
    """
    try:
        return decode(_bytes_of(path, options.max_bytes), options, notes)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnreadableImage(printable(path), reason) from error
    except ValueError as error:
        raise UnreadableImage(printable(path), str(error)) from error


def _bytes_of(path: bytes, max_bytes: int) -> bytes:
    """What a file holds; a pipe would be waited for, and a device may never end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    if status.st_size > max_bytes:
        raise ValueError(f"{status.st_size} bytes, more than data.max_bytes={max_bytes}")
    with open(path, "rb") as file:
        return file.read()


def printable(path: bytes) -> str:
    """A file name for a message: one line of text, whatever bytes the name is made of."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _check_pixels(height: int, width: int, options: PixelOptions) -> None:
    if height * width > options.max_pixels:
        raise ValueError(
            f"{width} x {height} pixels, more than data.max_pixels={options.max_pixels}"
        )


def _damage(warning: str, size: int) -> str | None:
    """What a warning of the JPEG decoder says of lost pixels, if it does."""
    too_many = TOO_MANY.search(warning)
    is_harmless = too_many and int(too_many[1]) <= FEW * size
    if is_harmless or not warning.startswith(("Corrupt", "Inconsistent")):
        return None
    return warning.removeprefix("Corrupt JPEG data: ")


def _orientation_of_jpeg(data: bytes) -> int:
    exif = (s for marker, s in jpeg_segments(data) if marker == APP1 and s.startswith(EXIF))
    return exif_orientation(next(exif, None))


def _upright(
    pixels: np.ndarray, orientation: int, applied: int, options: PixelOptions, notes: Notes
) -> np.ndarray:
    """Turn pixels as the options say; ``applied`` is what the decoder has turned them by."""
    notes.orientation = orientation
    wanted = orientation if options.orientation == "apply" else UPRIGHT
    if wanted == applied:
        return pixels
    return turned(turned(pixels, INVERSE.get(applied, applied)), wanted)


def _decode_with_pillow(data: bytes, options: PixelOptions, notes: Notes) -> np.ndarray:
    try:
        return _opened(data, options, notes)
    except ValueError:
        if not data.startswith(PNG):
            raise
    # it may be only a text or a profile that is damaged or too large: try without them
    return _opened(_pixels_alone(data), options, notes)


def _opened(data: bytes, options: PixelOptions, notes: Notes) -> np.ndarray:
    try:
        with _quiet_pillow():
            if data.startswith(TIFF_STARTS):
                return _read_tiff(data, options, notes)
            if data.startswith(NUMPY):
                return _read_npy(data, options, notes)
            with Image.open(BytesIO(data), formats=_formats(data)) as image:
                _check_pixels(image.height, image.width, options)
                pixels = _to_rgb(image, data, options, notes)
                orientation = exif_orientation(image.info.get("exif"))
                return _upright(pixels, orientation, UPRIGHT, options, notes)
    except Image.UnidentifiedImageError as error:
        raise ValueError(what_is(data)) from error
    except Exception as error:  # of damaged files, readers raise errors of any kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from error


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Without its warnings of metadata that it cannot read, and its own limit beside ours."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _formats(data: bytes) -> tuple[str, ...]:
    if data[4:8] == b"ftyp":
        _register_heif()
    Image.init()  # of all formats; the second time does nothing
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _check_room(tiff: Tiff, options: PixelOptions) -> None:
    """Refuse images whose stored values take far more memory than 8-bit pixels do."""
    size = tiff.height * tiff.width * max(tiff.samples, options.channels) * tiff.bits // 8
    if size > MAX_DEEP_BYTES * options.max_pixels:
        raise ValueError(
            f"{tiff}: {size} bytes, more than {MAX_DEEP_BYTES} for each of "
            f"data.max_pixels={options.max_pixels}"
        )


def _read_tiff(data: bytes, options: PixelOptions, notes: Notes) -> np.ndarray:
    tiff = Tiff(data)
    _check_pixels(tiff.height, tiff.width, options)
    if options.keeps_bands:
        return _read_bands(tiff, options, notes)
    notes.has_more_frames = tiff.has_more_pages
    notes.dropped_bands = tiff.extra.count(0)
    if tiff.is_deep:
        _check_room(tiff, options)
        pixels = to_rgb(tiff.read(notes), options, notes)
        return _upright(pixels, tiff.orientation, UPRIGHT, options, notes)
    if options.range is not None and tiff.bits > 8:
        raise ValueError(f"{tiff}, not RGB, to which data.range cannot be applied: save it as RGB")
    try:
        with Image.open(BytesIO(data), formats=("TIFF",)) as image:
            pixels = _to_rgb(image, data, options, notes)
    except Image.UnidentifiedImageError as error:
        cure = "write what matters of it as an 8-bit RGB TIFF or PNG"
        if tiff.samples not in (GREY, COLOURS):
            cure += f", or keep all by data.channels={tiff.samples}"
        raise ValueError(f"{tiff}: {cure}") from error
    return _upright(pixels, tiff.orientation, tiff.orientation, options, notes)


def _read_bands(tiff: Tiff, options: PixelOptions, notes: Notes) -> np.ndarray:
    """(H, W, C) uint8 of all bands."""
    if not tiff.has_pages_of_bands(options.channels):
        notes.has_more_frames = tiff.has_more_pages
        require_channels(tiff.samples, options)
    _check_room(tiff, options)
    pixels = in_8_bits(tiff.read_bands(options.channels), options, notes)
    return _upright(pixels, tiff.orientation, UPRIGHT, options, notes)


def _read_npy(data: bytes, options: PixelOptions, notes: Notes) -> np.ndarray:
    stored = read_npy(data, options)
    height, width = stored.values.shape[:2]
    _check_pixels(height, width, options)
    if options.keeps_bands:
        return in_8_bits(stored, options, notes)
    pixels = to_rgb(stored, options, notes)
    return to_grey(pixels) if options.channels == GREY else pixels


def _to_rgb(image: Image.Image, data: bytes, options: PixelOptions, notes: Notes) -> np.ndarray:
    """(H, W, C) uint8 of an image that Pillow has opened, as it is stored: not turned.

    Grey is still to be made of red, green and blue.
    """
    if notes.thorough:
        notes.has_more_frames = getattr(image, "is_animated", False)
    if options.keeps_bands:
        return in_8_bits(bands_of(image, data, options), options, notes)
    image.load()
    if image.mode.startswith(("I", "F")):
        return to_rgb(deep_grey(image, data, options), options, notes)
    if options.range is not None:
        stored = deep_colours(image, data)
        if stored is not None:
            return to_rgb(stored, options, notes)
    return _shallow_to_rgb(image, options, notes)


def pixels_of(image: Image.Image, options: PixelOptions, notes: Notes) -> np.ndarray:
    """(H, W, C) uint8 of an image that Pillow has opened elsewhere.

    Raises:
        ValueError: the options refuse it.
    """
    if options.keeps_bands:
        pixels = in_8_bits(bands_of(image, None, options), options, notes)
    elif image.mode.startswith(("I", "F")):
        pixels = to_rgb(Stored(np.array(image), full=None), options, notes)
    else:
        pixels = _shallow_to_rgb(image, options, notes)
    pixels = to_grey(pixels) if options.channels == GREY else pixels
    return _upright(pixels, exif_orientation(image.info.get("exif")), UPRIGHT, options, notes)


def _shallow_to_rgb(image: Image.Image, options: PixelOptions, notes: Notes) -> np.ndarray:
    """(H, W, 3) uint8 of an image of 8 bits or less, as it is stored: not turned."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.array(image)
    if image.mode == "LAB":
        return np.array(_from_lab(image))
    if image.mode == "La":  # grey times alpha
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return over_background(image.convert("RGB"), image.getchannel("A"), options, notes)
    return np.array(image.convert("RGB"))


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # it is not done in place
    return converted


def _pixels_alone(png: bytes) -> bytes:
    """A PNG without the chunks that do not affect its pixels."""
    kept, position = [PNG], len(PNG)
    while position + 12 <= len(png):
        size, kind = (
            int.from_bytes(png[position : position + 4], "big"),
            png[position + 4 : position + 8],
        )
        if kind[:1].isupper() or kind in KEPT_CHUNKS:
            kept.append(png[position : position + 12 + size])
        position += 12 + size
    return b"".join(kept)
