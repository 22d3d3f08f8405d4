"""Trunk and crops go together: the rows from which one is chosen by the images and by the time."""

from typing import NamedTuple

from ssl_platform.start.facts import Facts, Machine


class Size(NamedTuple):
    """A trunk, with the crops that it is trained on.

    Attributes:
        trunk: a part of ``configs/trunk``.
        crop: side of the two large crops, pixels; 0 is the side of small images themselves.
        small: side of the small crops as a part of that of the large ones.
        small_count: small crops of an image.
        images: fewest images for which so large a trunk is tried.
        devices: on which it is tried.
        out_dim: width of the embeddings.
        why: the reason and its source.
    """

    trunk: str
    crop: int
    small: float
    small_count: int
    images: int
    devices: tuple[str, ...]
    out_dim: int
    why: str


SMALL_IMAGES = 48  # pixels of their short side, up to which images are taken as they are
LEAST_SIDE = 16  # pixels of a large crop
BOTH = ("cpu", "cuda")

# the largest first: the first that sees enough images in the time is taken
SIZES = (
    Size("resnet50", 224, 3 / 7, 6, 100_000, ("cuda",), 128, "SwAV's own, for many images"),
    Size("resnet18", 128, 0.5, 6, 0, BOTH, 128, "lightly's Imagenette benchmark, kNN 90"),
    Size("resnet10_tiny", 64, 0.625, 2, 0, BOTH, 64, "the small trunk, for less time"),
    Size("resnet18_small", 0, 0.625, 2, 20_000, ("cuda",), 128, "no early loss of resolution"),
    Size("resnet10_tiny", 0, 0.625, 2, 0, BOTH, 64, "our recipes of 32-pixel images"),
)


class Look(NamedTuple):
    """How crops are cut and changed.

    Attributes:
        side: of the large crops, up to which it holds, pixels.
        large, small: part of the image that a crop shows.
        jitter: how often brightness and colours are changed.
        strength: of these changes.
        hue: strength of those of the hue.
        grayscale, blur: how often.
        margin: short side of an evaluated image, as a part of the centre that is cut from it.
        source: who says so.
    """

    side: int
    large: list[float]
    small: list[float]
    jitter: float
    strength: float
    hue: float
    grayscale: float
    blur: float
    margin: float
    source: str


# The smaller the image, the less a small part of it shows: wide ranges cost 14 points at 32 pixels.
LOOKS = (
    Look(48, [0.5, 1.0], [0.3, 0.6], 1.0, 0.3, 0.1, 0.5, 0.0, 1.0, "measured: docs/start.md"),
    Look(96, [0.5, 1.0], [0.3, 0.6], 1.0, 0.6, 0.2, 0.5, 0.0, 1.0, "measured: docs/start.md"),
    Look(10**9, [0.14, 1.0], [0.05, 0.14], 0.8, 0.8, 0.2, 0.2, 0.5, 1.14, "pretrain/swav/folder"),
)


def look_of(size: Size) -> Look:
    """The row for crops of this size."""
    return next(look for look in LOOKS if size.crop <= look.side)


def candidates(facts: Facts, machine: Machine) -> list[Size]:
    """The rows that fit the images and the device, with the side of their crops; largest first."""
    fitting = [s for s in SIZES if machine.device in s.devices and facts.number >= s.images]
    if facts.side <= SMALL_IMAGES:
        side = max(LEAST_SIDE, facts.side - facts.side % 4)
        return [size._replace(crop=side) for size in fitting if not size.crop]
    found = [size for size in fitting if size.crop and size.crop <= facts.side]
    smallest = [size for size in fitting if size.crop][-1]
    return found or [smallest._replace(crop=facts.side - facts.side % 4)]


def small_crop(size: Size) -> int:
    """Side of the small crops in pixels, a multiple of four."""
    return max(8, round(size.crop * size.small / 4) * 4)
