"""A look at some images of a set before a run: what they are, and what is unusual about them."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ssl_platform.console.working import working
from ssl_platform.data.contract import read_image
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.pixels import COLOURS, GREY, UPRIGHT, WHITE, Notes, PixelOptions
from ssl_platform.ops.image_size import ImageSize, height_and_width, in_words

NUM_LOOKED_AT = 64
MAX_PIXELS = 800_000_000  # of all of them: some seconds of one core; then fewer are looked at
PERCENTILES = (0.1, 99.9)  # of the values of a sample: what data.range=auto takes
DIGITS = 4  # of means and standard deviations
LEAST_STD = 0.001  # a quarter of a grey level
HUNDREDTH = 2  # of 255
MANY = 0.25  # of the images tried
FEW_VALUES = 0.01  # that may lie outside data.range without a word


class Seen(NamedTuple):
    """One image that was read."""

    name: str
    notes: Notes
    height: int
    width: int
    spread: int  # of its values, greatest less least, in the colour where it is widest


class Look(NamedTuple):
    """A sample of a data set's images."""

    seen: list[Seen]
    bad: list[UnreadableImage]

    @property
    def number(self) -> int:
        """Images that were tried."""
        return len(self.seen) + len(self.bad)

    @property
    def deep(self) -> list[Notes]:
        """Those of the images of more than 8 bits."""
        return [s.notes for s in self.seen if s.notes.stored not in (None, "uint8")]


def look(dataset: ImageDataset, seed: int) -> Look:
    """Read a sample of the images, the same for the same seed.

    A set that has to be prepared first is made or loaded as a whole, and not looked at.
    """
    seen: list[Seen] = []
    bad: list[UnreadableImage] = []
    if type(dataset).prepare is not ImageDataset.prepare:
        return Look(seen, bad)
    with working("reading a sample") as work:
        for index, notes, pixels in _sample(dataset, seed):
            work.advance()
            if isinstance(pixels, UnreadableImage):
                bad.append(pixels)
                continue
            height, width = pixels.shape[:2]
            seen.append(Seen(dataset.describe(index), notes, height, width, _spread(pixels)))
    return Look(seen, bad)


def _sample(
    dataset: ImageDataset, seed: int
) -> Iterator[tuple[int, Notes, np.ndarray | UnreadableImage]]:
    """Some images by their positions; the same for the same seed."""
    left = MAX_PIXELS
    size = min(NUM_LOOKED_AT, len(dataset))
    for index in np.random.default_rng(seed).choice(len(dataset), size, replace=False).tolist():
        notes = Notes(thorough=True)
        try:
            pixels = read_image(dataset, index, notes)
        except UnreadableImage as error:
            yield index, notes, error
            continue
        yield index, notes, pixels
        left -= pixels.shape[0] * pixels.shape[1]
        if left <= 0:
            break


def _spread(pixels: np.ndarray) -> int:
    """Of (H, W, C) values, greatest less least, in the colour where it is widest."""
    # rows first, which is ten times as fast as all pixels of a colour at once
    high, low = pixels.max(axis=0).max(axis=0), pixels.min(axis=0).min(axis=0)
    return int((high.astype(int) - low).max())


def found_normalize(dataset: ImageDataset, seed: int) -> Normalize:
    """What ``data.normalize=auto`` comes to: of each channel the mean and the standard deviation of
    a sample's pixels, each image counting the same.

    Args:
        dataset: prepared for.

    Raises:
        ValueError: no image can be read, or a channel has one value alone.
    """
    sums = np.zeros((2, dataset.channels))
    number = 0
    with working("reading a sample") as work:
        for _, _, pixels in _sample(dataset, seed):
            work.advance()
            if not isinstance(pixels, UnreadableImage):
                values = pixels.reshape(-1, dataset.channels) / WHITE
                sums += values.mean(axis=0), (values**2).mean(axis=0)
                number += 1
    if not number:
        raise ValueError("normalize=auto: none of the images tried can be read")
    mean, square = sums / number
    std = np.sqrt(np.maximum(square - mean**2, 0))
    flat = np.flatnonzero(std < LEAST_STD).tolist()
    if flat:
        raise ValueError(
            f"normalize=auto: channel {flat[0]}, counted from 0, has nearly one value in all "
            "images tried; leave it out, or set data.normalize.mean and data.normalize.std"
        )
    return Normalize(mean.round(DIGITS).tolist(), std.round(DIGITS).tolist())


def found_range(sample: Look) -> list[Any] | None:
    """What ``data.range=auto`` comes to: percentiles of the stored values; None for 8 bits.

    A pair for all values, or one for each channel where the bands of a file are kept.

    Raises:
        ValueError: no one range fits; the message begins with the option.
    """
    deep = sample.deep
    if not deep:
        return None
    kinds = sorted({str(notes.stored) for notes in deep})
    if len(kinds) > 1:
        raise ValueError(
            f"range=auto: the images tried hold {' and '.join(kinds)} values, and one range does "
            "not fit both; set data.range=[low,high], or make them alike"
        )
    values = np.concatenate([notes.sample for notes in deep if notes.sample is not None])
    if values.ndim == 1:
        return _range_of(values, "the images tried")
    return [
        _range_of(band, f"channel {number}, counted from 0,")
        for number, band in enumerate(values.T)
    ]


def _range_of(values: np.ndarray, whose: str) -> list[float]:
    """The pair of numbers between which nearly all of some stored values lie."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0.0, 0.0)
    if values.dtype.kind in "ui":
        low, high = int(np.floor(low)), int(np.ceil(high))
    else:
        low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    if not low < high:
        raise ValueError(
            f"range=auto: nearly all values of {whose} are {low:g}; set data.range=[low,high]"
        )
    return [low, high]


def describe(
    where: str, dataset: ImageDataset, sample: Look, *, crop_sizes: Sequence[ImageSize]
) -> list[str]:
    """The sample in a few lines: what there is, then what is unusual.

    Args:
        where: what messages call the set, ``data.train``.
        crop_sizes: side of each crop, or its height and width, in pixels.
    """
    channels = {COLOURS: "", GREY: ", grey"}.get(
        dataset.channels, f", {dataset.channels} channels each"
    )
    lines = [f"{where}: {dataset.summary()}{channels}"]
    clauses = [*_about_files(sample, dataset.pixels), *_about_values(sample, dataset.pixels)]
    if clauses:
        lines.append(f"  of {sample.number} images tried: {'; '.join(clauses)}")
    warnings = [*_about_range(sample, dataset.pixels), *_about_pixels(sample, crop_sizes)]
    return lines + [f"warning: {where}: {warning}" for warning in warnings]


def _about_files(sample: Look, options: PixelOptions) -> list[str]:
    """What is done with the files that are not plain."""
    turned = "turned as EXIF says" if options.orientation == "apply" else (
        "not turned as EXIF says (data.orientation=ignore)"
    )  # fmt: skip
    over = f"transparent, over data.background={options.background}"
    if options.background is None:
        over = "shown without its transparency (data.background=null)"
    bad = [f"{error.name}: {error.reason}" for error in sample.bad]
    damaged = [f"{s.name}: {s.notes.damage}" for s in sample.seen if s.notes.damage is not None]
    clauses = [
        f"{len(named)} {what}, first {named[0]}"
        for what, named in {"unreadable": bad, "damaged and used all the same": damaged}.items()
        if named
    ]
    notes = [s.notes for s in sample.seen]
    counts = {
        turned: sum(n.orientation != UPRIGHT for n in notes),
        over: sum(n.is_transparent for n in notes),
        "with further pages or frames, of which the first is taken": sum(
            n.has_more_frames for n in notes
        ),
        "with bands beside red, green and blue, which are left out": sum(
            n.dropped_bands > 0 for n in notes
        ),
    }
    return clauses + [f"{count} {what}" for what, count in counts.items() if count]


def _about_values(sample: Look, options: PixelOptions) -> list[str]:
    """How stored values of more than 8 bits become pixels."""
    deep = sample.deep
    if not deep:
        return []
    kinds = " and ".join(sorted({str(notes.stored) for notes in deep}))
    low, high = _extremes(deep)
    how = "of which the whole range of the format is taken"
    if options.range is not None:
        how = f"of which data.range={_list(options.range)} is taken"
    return [f"{len(deep)} of {kinds} values, {low:g} to {high:g}, {how}"]


def _about_range(sample: Look, options: PixelOptions) -> list[str]:
    if options.range is not None:
        share = float(np.mean([notes.outside for notes in sample.deep] or [0.0]))
        warning = (
            f"{share:.0%} of the values of the images tried lie outside data.range="
            f"{_list(options.range)}, and become black or white"
        )
        return [warning] if share > FEW_VALUES else []
    warnings = []
    for full in sorted({s.notes.full for s in sample.seen if s.notes.full is not None}):
        low, high = _extremes([s.notes for s in sample.seen if s.notes.full == full])
        if full > 255 and high <= full // 2:
            room = 2 ** max(1, int(high).bit_length()) - 1
            warnings.append(
                f"the images tried use {low:g}..{high:g} of {full}, and are dark: set "
                f"data.range=[0,{room}], or data.range=auto"
            )
    return warnings


def _extremes(deep: Sequence[Notes]) -> tuple[float, float]:
    return min(n.extremes[0] for n in deep), max(n.extremes[1] for n in deep)


def _list(value: Sequence[Any] | str) -> str:
    if isinstance(value, str):
        return value
    return f"[{','.join(f'{v:g}' if isinstance(v, int | float) else _list(v) for v in value)}]"


def _about_pixels(sample: Look, crop_sizes: Sequence[ImageSize]) -> list[str]:
    """What a network could learn little from."""
    tried = f"of the {sample.number} images tried"
    flat = [s for s in sample.seen if s.spread == 0]
    faint = [s for s in sample.seen if 0 < s.spread <= HUNDREDTH]
    largest = max(crop_sizes, key=lambda size: prod(height_and_width(size)))
    height, width = height_and_width(largest)
    small = [s for s in sample.seen if s.height < height or s.width < width]
    warnings = []
    if flat:
        warnings.append(f"{len(flat)} {tried} are of one colour, first {flat[0].name}")
    if faint:
        warnings.append(
            f"{len(faint)} {tried} use a hundredth of the range of values or less, first "
            f"{faint[0].name}"
        )
    if small and len(small) >= MANY * sample.number:
        first, size = small[0], height if height == width else in_words(largest)
        warnings.append(
            f"{len(small)} {tried} are smaller than the largest crop, {size} pixels, first "
            f"{first.name} ({first.width} x {first.height})"
        )
    return warnings
