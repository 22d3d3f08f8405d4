"""Multi-crop (Caron et al. 2020, arXiv:2006.09882, section 3.2): few large and many small crops."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ssl_platform import distributed
from ssl_platform.data.crops import native_crop, opencv_crop
from ssl_platform.data.crops.draw import NUM_BOX_UNIFORMS, CropDraw, CropRule
from ssl_platform.data.crops.groups import CropGroup, Ratio, ops_of_groups, unfit
from ssl_platform.data.crops.streams import Streams
from ssl_platform.data.decoding.pixels import COLOURS
from ssl_platform.errors import DataError
from ssl_platform.ops.image_size import ImageSize, height_and_width
from ssl_platform.registry import TRANSFORMS

logger = logging.getLogger(__name__)


@TRANSFORMS.register()
class MultiCrop:
    """Random crops of an image, independent of each other, each augmented by itself.

    The random numbers of an op are a function of what the generator gives for an image, the name of
    the group, the crop's number in it and the op's name. So they stay what they are when another
    op, crop or group comes or goes.

    Args:
        crops: groups by name. Crops come in the order of the groups, except that groups of equal
            size are put together.
        ratio: range of a crop's width over its height, drawn on a logarithmic scale.
        ops: what is done to each crop, by name, in this order: objects of `CROP_OPS`, or mappings
            with their ``name`` and options; None for none. A group's own ops change those that have
            the same name at their place, and follow the others.

    Raises:
        ValueError: no crop at all, or an op that cannot work.
    """

    draws = "by the names of group and op"  #: what crops of the same seed depend on; saved by runs

    def __init__(self, *, crops: dict[str, CropGroup], ratio: Ratio, ops: dict[str, Any]):
        if not any(group.count for group in crops.values()):
            raise ValueError(
                f"crops={{{', '.join(crops)}}}: at least one group needs count 1 or more"
            )
        placed = ops_of_groups(crops, ops)
        self._groups = {name: (group, placed[name]) for name, group in crops.items() if group.count}
        self._num_channels = COLOURS  # that all ops can work with
        self._apply, self.implementation, description = _implementation()
        _tell(description)
        self._rules: list[CropRule] = []
        names: list[tuple[str, ...]] = []
        lengths: list[int] = []
        self.crop_names: list[str] = []  #: the group of each crop
        sizes = list(dict.fromkeys(height_and_width(group.size) for group in crops.values()))
        for name, (group, ops_of_group) in sorted(
            self._groups.items(), key=lambda item: sizes.index(height_and_width(item[1][0].size))
        ):
            drawn = [one.op for one in ops_of_group.values()]
            size = height_and_width(group.size)
            self._rules += [CropRule(size, group.scale, group.ratio or ratio, drawn)] * group.count
            self.crop_names += [name] * group.count
            for number in map(str, range(group.count)):
                names += [(name, number), *((name, number, key) for key in ops_of_group)]
                lengths += [NUM_BOX_UNIFORMS, *(op.num_uniforms for op in drawn)]
        self._streams = Streams(names, lengths)

    @property
    def num_crops(self) -> int:
        """Crops of each image."""
        return len(self._rules)

    @property
    def crop_sizes(self) -> list[ImageSize]:
        """Side of each crop, or its height and width, in pixels; equal sizes are adjacent."""
        sizes = [rule.size for rule in self._rules]
        return [height if height == width else (height, width) for height, width in sizes]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Crops of ``image`` ((H, W, C) uint8; RGB if C is 3): (height, width, C) uint8 each.

        Raises:
            DataError: an op cannot work with this number of channels.
        """
        height, width, channels = image.shape
        if channels != self._num_channels:
            self._require_channels(channels)
        apply = self._apply if channels == COLOURS else opencv_crop.apply_crop
        return [apply(image, draw) for draw in self.draw(height, width, rng)]

    def draw(self, height: int, width: int, rng: np.random.Generator) -> list[CropDraw]:
        """The random parameters of every crop of an image of ``height`` x ``width`` pixels."""
        uniforms = iter(self._streams.uniforms(rng))
        return [rule.draw(height, width, uniforms) for rule in self._rules]

    def _require_channels(self, channels: int) -> None:
        lines = [line for group in self._groups.values() for line in unfit(*group, channels)]
        if lines:
            raise DataError("\n".join(dict.fromkeys(lines)))
        self._num_channels = channels


@cache
def _tell(description: str) -> None:
    """Say once what makes the crops: a run may have several transforms."""
    if distributed.rank() == 0:
        logger.info("crops: %s", description)


def _implementation() -> tuple[Callable[[np.ndarray, CropDraw], np.ndarray], str, str]:
    """What cuts and augments a crop of 3 channels here, its name, and what the log says of it."""
    if native_crop.AVAILABLE:
        return native_crop.apply_crop, "compiled kernel", "compiled kernel"
    why = (
        f"which cannot be loaded ({native_crop.DAMAGE}); build it anew"
        if native_crop.DAMAGE
        else "which an installation builds where it finds a C++ compiler"
    )
    return opencv_crop.apply_crop, "OpenCV", f"OpenCV, slower than the compiled kernel, {why}"
