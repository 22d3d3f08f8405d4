"""Ten classes of grey figures on a textured ground, made on the spot: no download, any size.

Each image is computed from a signed distance (negative inside the figure), so edges are smooth.
Place, scale, rotation, brightness and ground vary so much that raw pixels say little about the
class.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.bands import to_grey
from ssl_platform.data.decoding.pixels import COLOURS, GREY
from ssl_platform.registry import DATASETS

SCALES = (0.38, 0.70)  # half the figure's size, as a part of half the image's side
MAX_ROTATION = np.pi / 3  # either way; the ten classes can still be told apart
BRIGHTNESS = (0.6, 1.0)  # of the figure
GROUND_BRIGHTNESS = 0.1
TEXTURE_CELLS = 4  # the ground is a 4 x 4 grid of random levels per channel, blown up
TEXTURE_AMPLITUDE = 0.3
NOISE_STD = 0.08
EDGE_SHARPNESS = 32.0  # coverage of a pixel = sigmoid(-distance * scale * sharpness)
BLOCK = 512  # images that are made together, from one random stream


@DATASETS.register()
class Shapes(ImageDataset):
    """Generated images of ten balanced classes: image i is of class ``i % 10``.

    Disc, square, triangle, star, plus, ring, crescent, two discs, T, two bars. Image i depends on
    ``seed`` and i alone, not on ``num_samples``. About 0.1 ms an image of 32 x 32 to make.

    Args:
        num_samples: number of images.
        size: side in pixels.
        seed: another seed gives other images of the same classes.
    """

    def __init__(
        self,
        *,
        num_samples: Annotated[int, Field(ge=1)],
        size: Annotated[int, Field(ge=8)],
        seed: Annotated[int, Field(ge=0)],
    ):
        self.size, self.seed = size, seed
        self.num_samples = num_samples
        self.labels = np.arange(num_samples, dtype=np.int64) % len(_DISTANCES)
        self._blocks: dict[int, np.ndarray] = {}  # by their number, (<= BLOCK, size, size, 3) uint8

    @property
    def channels(self) -> int:  # type: ignore[override]
        """One where grey is asked for, else three."""
        return GREY if self.pixels.channels == GREY else COLOURS

    def __len__(self) -> int:
        return self.num_samples

    def read(self, index: int) -> np.ndarray:
        number, row = divmod(index, BLOCK)
        image = self._block(number, row + 1)[row]
        return to_grey(image) if self.channels == GREY else image

    def describe(self, index: int) -> str:
        return f"Shapes[{index}]"

    def prepare(self) -> None:
        for start in range(0, len(self), BLOCK):
            self._block(start // BLOCK, min(BLOCK, len(self) - start))

    def _block(self, number: int, least: int) -> np.ndarray:
        """The block with at least so many of its images: the first alone, or all."""
        block = self._blocks.get(number)
        if block is None or len(block) < least:
            start, rng = number * BLOCK, np.random.default_rng((self.seed, number))
            # the check of a config looks at one image
            count = 1 if least == 1 else min(BLOCK, len(self) - start)
            block = self._blocks[number] = _render(start, count, self.size, rng)
        return block


def _render(start: int, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """The first ``count`` images of the block from ``start`` on; (count, size, size, 3) uint8."""
    # Drawn for the whole block even if it is cut short: an image must not depend on the set's end.
    scale = rng.uniform(*SCALES, BLOCK).astype(np.float32)[:count, None, None]
    angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION, BLOCK).astype(np.float32)[:count, None, None]
    centre = rng.uniform(-0.9, 0.9, (2, BLOCK)).astype(np.float32)[:, :count, None, None]
    brightness = rng.uniform(*BRIGHTNESS, BLOCK).astype(np.float32)[:count, None, None, None]
    cells = rng.random((BLOCK, 3, TEXTURE_CELLS, TEXTURE_CELLS), dtype=np.float32)[:count]
    noise = rng.standard_normal((count, size, size, 3), dtype=np.float32)

    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    dx = (axis[None, None, :] - centre[0] * (1 - scale)) / scale  # (count, 1, size)
    dy = (axis[None, :, None] - centre[1] * (1 - scale)) / scale  # (count, size, 1)
    x = np.cos(angle) * dx + np.sin(angle) * dy  # (count, size, size), in the figure's own frame
    y = np.cos(angle) * dy - np.sin(angle) * dx
    distance = np.empty_like(x)
    labels = np.arange(start, start + count) % len(_DISTANCES)
    for label, distance_to in enumerate(_DISTANCES):
        rows = labels == label
        distance[rows] = distance_to(x[rows], y[rows])
    exponent = distance * scale * EDGE_SHARPNESS
    coverage = 1 / (1 + np.exp(np.minimum(exponent, 60)))[..., None]  # 60: keeps exp finite

    blow_up = _bilinear(TEXTURE_CELLS, size)
    texture = (blow_up @ cells @ blow_up.T).transpose(0, 2, 3, 1)
    ground = GROUND_BRIGHTNESS + TEXTURE_AMPLITUDE * (texture - 0.5)
    level = ground + coverage * (brightness - ground) + NOISE_STD * noise
    return np.clip(np.rint(255 * level), 0, 255).astype(np.uint8)


def _bilinear(cells: int, size: int) -> np.ndarray:
    """(size, cells) float32 weights that stretch a row of ``cells`` values to ``size`` pixels."""
    position = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0).astype(np.float32)


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.8


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _box(x, y, 0.7, 0.7)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(-y, np.float32(np.sqrt(3) / 2) * np.abs(x) + 0.5 * y) - 0.5


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    points = (1 + np.cos(5 * np.arctan2(y, x))) / 2
    return np.hypot(x, y) - 0.42 - 0.42 * points**1.2


def _plus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x, y, 0.85, 0.28), _box(x, y, 0.28, 0.85))


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.65) - 0.2


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 0.85, 0.68 - np.hypot(x - 0.38, y))


def _two_discs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(np.abs(x) - 0.5, y) - 0.38


def _tee(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x, y - 0.55, 0.8, 0.25), _box(x, y + 0.15, 0.25, 0.7))


def _two_bars(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _box(x, np.abs(y) - 0.5, 0.8, 0.22)


# One signed distance per class, for points in the figure's own frame.
_DISTANCES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _disc, _square, _triangle, _star, _plus, _ring, _crescent, _two_discs, _tee, _two_bars,
)  # fmt: skip
