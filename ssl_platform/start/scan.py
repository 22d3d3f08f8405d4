"""A look at a folder, or at a list: how many images there are, and what they are."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from time import perf_counter

import numpy as np

from ssl_platform.data.contract import read_image
from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.decoding.pixels import AUTO, COLOURS, GREY, Notes, PixelOptions
from ssl_platform.data.decoding.tiff import STARTS as TIFF_STARTS
from ssl_platform.data.decoding.tiff import Tiff
from ssl_platform.data.sets.image_folder import LISTS, ImageFiles, ImageFolder
from ssl_platform.data.sets.list_file import ListFile
from ssl_platform.errors import ConfigError
from ssl_platform.start.facts import Facts

MOST_TRIED = 256  # images that are read
MOST_SECONDS = 10.0  # that reading them may take, and that looking for copies may
MOST_COMPARED = 200_000  # images that are looked through for copies
START_BYTES = 4096  # that are compared before whole files are
GREY_CHROMA = 3.0  # mean difference between the colours of a grey picture, of 255: JPEG rounds
GREY_SHARE = 0.99  # of the images read, that have to be grey
MOST_BANDS = 64
Groups = dict[object, list[int]]  # positions of images that may be the same


def scan(path: str) -> Facts:
    """Look at the images of a folder, or of a list; of many, at a sample.

    Raises:
        ConfigError: there are none, or none can be read.
    """
    files, is_list = _opened(path)
    order = np.random.default_rng(0).permutation(len(files))[:MOST_TRIED].tolist()
    files.pixels = PixelOptions(channels=_bands(files, order), range=AUTO)
    seen, bad, seconds = _read(files, order)
    if not seen:
        told = f"none of the {len(bad)} images tried can be read, first {bad[0]}"
        raise ConfigError([f"{path}: {told}"])
    compared, copies, first = _copies(files)
    is_grey = files.channels == COLOURS and _share(s.is_grey for s in seen) >= GREY_SHARE
    labels = np.array([]) if files.labels is None else files.labels[files.labels >= 0]
    return Facts(
        path=os.path.abspath(os.path.expanduser(path)),
        is_list=is_list,
        number=len(files),
        summary=files.summary(),
        class_sizes=tuple(np.unique(labels, return_counts=True)[1].tolist()),
        tried=len(seen) + len(bad),
        unreadable=tuple(bad),
        short_sides=tuple(sorted(s.short_side for s in seen)),
        flat=sum(s.is_flat for s in seen),
        is_grey=is_grey or files.channels == GREY,
        channels=GREY if is_grey else files.channels,
        stored=tuple(sorted({s.stored for s in seen if s.stored})),
        transparent=sum(s.is_transparent for s in seen),
        compared=compared,
        copies=copies,
        first_copy=first,
        read_seconds=seconds / len(seen),
    )


class _Seen:
    """What is kept of an image that was read."""

    def __init__(self, pixels: np.ndarray, notes: Notes):
        height, width, channels = pixels.shape
        self.short_side = min(height, width)
        high, low = pixels.max(axis=(0, 1)).astype(int), pixels.min(axis=(0, 1)).astype(int)
        self.is_flat = bool((high == low).all())
        self.is_transparent = notes.is_transparent
        self.stored = notes.stored if notes.stored not in (None, "uint8") else None
        self.is_grey = channels == COLOURS and _chroma(pixels) <= GREY_CHROMA


def _chroma(pixels: np.ndarray) -> float:
    """Mean difference between the greatest and the least colour, of some (H, W, 3) pixels."""
    step = max(1, max(pixels.shape[:2]) // 128)
    some = pixels[::step, ::step]
    return float((some.max(axis=2).astype(int) - some.min(axis=2)).mean())


def _share(marks: Iterable[bool]) -> float:
    return float(np.mean([*marks]))


def _opened(path: str) -> tuple[ImageFiles, bool]:
    """The set, and whether it is a list."""
    expanded = os.path.expanduser(path)
    is_list = path.lower().endswith(LISTS) and os.path.isfile(expanded)
    try:
        if is_list:
            return ListFile(path=path, root=None, allow_outside=False), True
        return ImageFolder(path=path), False
    except ValueError as error:
        lines = [_in_words_of_start(line) for line in str(error).splitlines()]
        raise ConfigError(lines) from error


def _in_words_of_start(line: str) -> str:
    """``data.train.path=X`` is what ``start`` is given first."""
    return line.removeprefix("path=").replace("write data.train.path=", "type start ")


def _bands(files: ImageFiles, order: list[int]) -> int:
    """Channels to read: the bands of TIFFs that have more than red, green and blue."""
    numbers = set()
    for index in order[:8]:
        try:
            with open(files.files[index], "rb") as file:
                data = file.read(files.pixels.max_bytes)
            tiff = Tiff(data) if data.startswith(TIFF_STARTS) else None
        except (OSError, ValueError):
            continue
        has_more = tiff is not None and (tiff.samples > 4 or 0 in tiff.extra)
        numbers.add(tiff.samples if tiff is not None and has_more else COLOURS)
    (only,) = numbers if len(numbers) == 1 else (COLOURS,)
    return only if only <= MOST_BANDS else COLOURS


def _read(files: ImageFiles, order: list[int]) -> tuple[list[_Seen], list[str], float]:
    """Those that can be read, names and reasons of the others, and the seconds of reading."""
    seen: list[_Seen] = []
    bad: list[str] = []
    seconds = 0.0
    for index in order:
        notes, start = Notes(), perf_counter()
        try:
            pixels = read_image(files, index, notes)
        except UnreadableImage as error:
            bad.append(f"{error.name}: {error.reason}")
            continue
        seconds += perf_counter() - start
        seen.append(_Seen(pixels, notes))
        if seconds > MOST_SECONDS:
            break
    return seen, bad, seconds


def _copies(files: ImageFiles) -> tuple[int, int, tuple[str, ...]]:
    """How many images were looked through, how many have the bytes of one before, the first two.

    Files are compared by their size, then by their beginning, then as a whole.
    """
    number, end = min(len(files), MOST_COMPARED), perf_counter() + MOST_SECONDS
    groups: Groups = {0: list(range(number))}
    for key in (_size, _start, _whole):
        groups = _split(groups, files, key, end)
    copies = sorted(sorted(group) for group in groups.values())
    names = tuple(printable(files.files[index]) for index in copies[0][:2]) if copies else ()
    return number, sum(len(group) - 1 for group in copies), names


def _split(groups: Groups, files: ImageFiles, key: Callable[[bytes], object], end: float) -> Groups:
    """Groups of more than one image whose key is the same; no further ones after ``end``."""
    found: defaultdict[object, list[int]] = defaultdict(list)
    for name, group in groups.items():
        for index in group:
            if perf_counter() > end:
                break
            value = key(files.files[index])
            if value is not None:
                found[name, value].append(index)
    return {name: group for name, group in found.items() if len(group) > 1}


def _size(path: bytes) -> object:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _start(path: bytes) -> object:
    return _digest(path, START_BYTES)


def _whole(path: bytes) -> object:
    return _digest(path, PixelOptions().max_bytes)


def _digest(path: bytes, size: int) -> object:
    try:
        with open(path, "rb") as file:
            return hashlib.blake2b(file.read(size), digest_size=16).digest()
    except OSError:
        return None
