"""Decoded values become what a network gets: 8 bits of each channel."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageColor

GREY, COLOURS = 1, 3  # numbers of channels to which every picture can be brought
UPRIGHT = 1  # of the eight orientations that EXIF numbers
INVERSE = {6: 8, 8: 6}  # of an orientation; each of the others undoes itself
WHITE = 255


AUTO = "auto"  # a range that is still to be found


@dataclass(frozen=True)
class PixelOptions:
    """How the pixels of a file become those that the network sees.

    Attributes:
        channels: 3 makes red, green and blue of every picture, 1 grey (ITU-R BT.601). With any
            other number all bands of a file are kept as they are stored, and a file with more or
            fewer of them is unreadable.
        range: stored values that become black and white, for files of more than 8 bits; a pair for
            all channels, or one for each. None takes all of the range that the format has, where
            it has one, and ``AUTO`` the extremes of each file, to look at before the range is
            found.
        orientation: whether EXIF's orientation is applied, in all formats alike.
        background: what shows through where a picture is transparent; None drops the transparency
            and shows the colours that lie under it.
        corrupt: whether a JPEG is used whose decoder says that data are missing or damaged.
        max_pixels: width times height, looked up in the header before anything is decoded.
        max_bytes: of the file.

    Raises:
        ValueError: one line for each option that is wrong; it begins with the option.
    """

    channels: int = COLOURS
    range: Sequence[Any] | str | None = None
    orientation: Literal["apply", "ignore"] = "apply"
    background: Sequence[int] | str | None = "white"
    corrupt: Literal["use", "refuse"] = "refuse"
    max_pixels: int = 50_000_000
    max_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        problems = []
        if self.range is not None and not _is_range(self.range, self.channels):
            each = f", or such a pair for each of the {self.channels} channels"
            problems.append(
                f"range={_compact(self.range)}: two numbers, the lower first, such as [0,4095]"
                f"{each if self.channels > 1 else ''}, or auto, or null"
            )
        if self.background is not None and not _is_colour(self.background):
            problems.append(
                f"background={_compact(self.background)}: a colour such as white or [255,255,255], "
                "or null"
            )
        for name in ("channels", "max_pixels", "max_bytes"):
            if getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)}: at least 1")
        if problems:
            raise ValueError("\n".join(problems))

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "PixelOptions":
        """Those among the keys of ``data``; what is not there, and channels of null, is a default.

        Raises:
            ValueError: see the class.
        """
        given = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        if data.get("channels") is None:
            given.pop("channels", None)
        return cls(**given)

    @property
    def keeps_bands(self) -> bool:
        """Whether the bands of a file are kept as they are stored."""
        return self.channels not in (GREY, COLOURS)

    @property
    def ends(self) -> tuple[Any, Any] | None:
        """The values that become black and white: two numbers, or (C,) arrays of them.

        None where the range is left open.
        """
        if self.range is None or self.range == AUTO:
            return None
        low, high = np.asarray(self.range, np.float64).T
        return low, high

    @property
    def background_rgb(self) -> tuple[int, int, int] | None:
        """``background`` as numbers."""
        if isinstance(self.background, str):
            red, green, blue = ImageColor.getrgb(self.background)[:3]
            return red, green, blue
        if self.background is None:
            return None
        red, green, blue = map(int, self.background)
        return red, green, blue


def _compact(value: Any) -> str:
    return str(value).replace(" ", "")


def _is_range(value: Any, channels: int) -> bool:
    if isinstance(value, str):
        return value == AUTO
    is_list = isinstance(value, list | tuple)
    if is_list and len(value) == channels > 1 and not any(map(_is_number, value)):
        return all(isinstance(pair, list | tuple) and _is_range(pair, 1) for pair in value)
    numbers = _numbers(value, 2)
    return numbers is not None and isfinite(numbers[0] + numbers[1]) and numbers[0] < numbers[1]


def _is_colour(value: Any) -> bool:
    if not isinstance(value, str):
        numbers = _numbers(value, 3)
        return numbers is not None and all(0 <= n <= WHITE and n == int(n) for n in numbers)
    try:
        return len(ImageColor.getrgb(value)) == 3
    except ValueError:
        return False


def _numbers(value: Any, count: int) -> list[float] | None:
    """The ``count`` numbers that a value from YAML is a list of, if it is."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    return list(value) if all(map(_is_number, value)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass
class Notes:
    """What is unusual about one file that was read.

    Attributes:
        thorough: whether to find out also what costs time.
        damage: what the decoder says is wrong with a file that is used all the same.
        stored: type of the stored values, where they are more than 8 bits: uint16, float32, ...
        full: the greatest value that the format has room for; None where it has no white.
        sample: some of the stored values, evenly spaced; (n, C) where the bands of a file are kept,
            else (n,); found only if ``thorough``.
        extremes: the least and the greatest of them that are finite; if ``thorough``.
        outside: part of the sample that lies outside ``range``, or is no number.
        orientation: that of EXIF, where it is applied or ``thorough``.
        is_transparent: some pixels are, wholly or in part.
        has_more_frames: further pages or frames, which are not looked at; if ``thorough``.
        dropped_bands: beyond those of red, green and blue.
    """

    thorough: bool = False
    damage: str | None = None
    stored: str | None = None
    full: int | None = None
    sample: np.ndarray | None = None
    extremes: tuple[float, float] = (0.0, 0.0)
    outside: float = 0.0
    orientation: int = UPRIGHT
    is_transparent: bool = False
    has_more_frames: bool = False
    dropped_bands: int = 0


@dataclass(frozen=True)
class Stored:
    """Values as a file of more than 8 bits holds them.

    Attributes:
        values: (H, W) grey, (H, W, 3) RGB or (H, W, C) bands, of any type of numbers.
        full: the greatest value that the format has room for; None where it has no white.
        alpha: (H, W) uint8, 0 where the picture is transparent; None if it is nowhere.
        is_inverted: 0 is white.
    """

    values: np.ndarray
    full: int | None
    alpha: np.ndarray | None = None
    is_inverted: bool = False


NUM_SAMPLED = 10_000  # values of one file
UPPER_BYTE = 2**16 - 1  # of these values the upper byte is kept


def to_rgb(stored: Stored, options: PixelOptions, notes: Notes) -> np.ndarray:
    """Bring stored values to 8 bits, by ``options.range`` or the format's own; (H, W, 3) uint8.

    Of full 16 bits the upper 8 are kept. Values outside the range become black or white; those that
    are no number become black.

    Raises:
        ValueError: it takes a range to tell what is black and white, or no value is a number.
    """
    pixels = in_8_bits(stored, options, notes)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if stored.alpha is None:
        return pixels
    return over_background(Image.fromarray(pixels), Image.fromarray(stored.alpha), options, notes)


def in_8_bits(stored: Stored, options: PixelOptions, notes: Notes) -> np.ndarray:
    """The values as uint8, in their own shape; see `to_rgb`."""
    if options.ends is not None and np.ndim(options.ends[0]) > stored.values.ndim - 2:
        values = np.repeat(stored.values[..., None], options.channels, axis=2)
        stored = replace(stored, values=values)  # grey, of which each channel has its own range
    _note_values(stored, options, notes)
    pixels = _in_8_bits(stored, options)
    return np.ascontiguousarray(WHITE - pixels if stored.is_inverted else pixels)


def _note_values(stored: Stored, options: PixelOptions, notes: Notes) -> None:
    values = stored.values
    notes.stored, notes.full = str(values.dtype), stored.full
    if values.dtype.kind == "f" and not np.isfinite(values).any():
        raise ValueError("none of its values is a number")
    if not notes.thorough:
        return
    notes.extremes = _extremes(values)
    rows = values.reshape(-1, options.channels) if options.keeps_bands else values.reshape(-1)
    notes.sample = rows[:: max(1, len(rows) // NUM_SAMPLED)]
    if options.ends is not None:
        low, high = options.ends
        rows = values.reshape(-1, options.channels) if np.ndim(low) else rows
        sample = rows[:: max(1, len(rows) // NUM_SAMPLED)]
        notes.outside = 1 - float(np.mean((sample >= low) & (sample <= high)))


def _extremes(values: np.ndarray) -> tuple[float, float]:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return values.min().item(), values.max().item()


def _in_8_bits(stored: Stored, options: PixelOptions) -> np.ndarray:
    values = stored.values
    if values.dtype == np.uint8:
        return values
    if options.range == AUTO:
        low, high = _extremes(values)
        return _stretched(values, low, max(high, low + 1))
    if options.ends is not None:
        return _stretched(values, *options.ends)
    if stored.full is None:
        raise ValueError(
            f"{values.dtype} values have no black and white of their own: set data.range=[low,high]"
            " or data.range=auto"
        )
    if stored.full == UPPER_BYTE:
        return (values >> 8).astype(np.uint8)
    return _stretched(values, 0, stored.full)


def _stretched(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """uint8: 0 at ``low`` and below, 255 at ``high`` and above."""
    exact = np.float32 if values.dtype.itemsize <= 2 else np.float64
    scaled = (values.astype(exact) - exact(low)) * exact(WHITE / (high - low))
    scaled = np.nan_to_num(scaled, copy=False, nan=0.0, posinf=WHITE, neginf=0.0)
    return np.rint(scaled.clip(0, WHITE)).astype(np.uint8)


def over_background(
    colours: Image.Image, alpha: Image.Image, options: PixelOptions, notes: Notes
) -> np.ndarray:
    """RGB colours over ``options.background``; opaque pixels stay as they are."""
    notes.is_transparent = alpha.getextrema()[0] != WHITE
    if options.background_rgb is None or not notes.is_transparent:
        return np.array(colours)
    ground = Image.new("RGB", colours.size, options.background_rgb)
    ground.paste(colours, mask=alpha)
    return np.array(ground)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A picture as EXIF's ``orientation`` says it is to be seen; (H, W, C) or (W, H, C)."""
    if orientation == UPRIGHT:
        return pixels
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def exif_orientation(exif: bytes | None) -> int:
    """1 to 8; 1 also where there is none, or no valid one."""
    if not exif:
        return UPRIGHT
    tags = Image.Exif()
    try:
        with warnings.catch_warnings():  # of what is damaged in it, without a name
            warnings.simplefilter("ignore")
            tags.load(exif)
            return valid_orientation(tags.get(ExifTags.Base.Orientation))
    except Exception:  # of bytes that are no EXIF, the reader of tags raises errors of any kind
        return UPRIGHT


def valid_orientation(value: object) -> int:
    """A value of EXIF's tag, 1 where it cannot be one."""
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT
