"""A picture of the crops that the model gets."""

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from typing import Annotated

import numpy as np
from annotated_types import Ge
from PIL import Image, ImageDraw, ImageFont

from ssl_platform import distributed
from ssl_platform.console import escaped
from ssl_platform.data.shown import as_rgb
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.registry import HOOKS

LEAST_SIDE = 96  # pixels: smaller crops are enlarged
MOST_SIDE = 1024  # of an enlarged crop
HEADER, LETTERS = 20, 12  # heights in pixels


@HOOKS.register()
class CropPicture(Events):
    """After the first step, save the crops of a few images as ``crops.png``; loggers get them too.

    One row per image, one column per crop, under the name of its group and its size. Small crops
    are enlarged, all by the same whole number; `as_rgb` says what is shown of many channels.

    Args:
        num_images: rows; no more than the batch size of the first rank.
    """

    def __init__(self, *, num_images: Annotated[int, Ge(1)]):
        self.num_images = num_images

    def on_step_end(self, run: Run) -> None:
        if run.step != 1 or distributed.rank() != 0 or run.batch is None:
            return
        crops = [crop[: self.num_images] for crop in run.batch.crops]
        columns = [as_rgb(run.train_loader.to_pixels(crop)) for crop in crops]
        names = getattr(run.train_loader.transform, "crop_names", None) or ["crop"] * len(columns)
        sheet = crop_sheet(columns, names)
        png = BytesIO()
        Image.fromarray(sheet).save(png, "PNG")
        write_or_warn(run.output_dir / "crops.png", png.getvalue())
        run.loggers.image("crops", sheet, run.step)


def crop_sheet(columns: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Crops side by side, (H, W, 3) uint8.

    Args:
        columns: for each crop, (N, height, width, 3) uint8: that of each of N images.
        names: of the groups of the crops.
    """
    sides = [side for column in columns for side in column.shape[1:3]]
    scale = max(1, min(-(-LEAST_SIDE // min(sides)), MOST_SIDE // max(sides)))
    high, wide = (scale * max(column.shape[axis] for column in columns) for axis in (1, 2))
    rows, gap = len(columns[0]), max(4, max(high, wide) // 32)
    shape = (HEADER + rows * (high + gap), len(columns) * (wide + gap), 3)
    sheet = np.full(shape, 255, np.uint8)
    for number, column in enumerate(columns):
        for row, crop in enumerate(column.repeat(scale, axis=1).repeat(scale, axis=2)):
            top, left = HEADER + row * (high + gap), number * (wide + gap)
            sheet[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    picture = Image.fromarray(sheet)
    _name_columns(ImageDraw.Draw(picture), _headers(columns, names), wide + gap)
    return np.asarray(picture)


def _headers(columns: Sequence[np.ndarray], names: Sequence[str]) -> list[str]:
    """Above each crop its group, width and height."""
    return [
        f"{escaped(name)} {column.shape[2]} x {column.shape[1]}"
        for name, column in zip(names, columns, strict=True)
    ]


def _name_columns(draw: ImageDraw.ImageDraw, headers: Sequence[str], width: int) -> None:
    """Write each header once above the columns that share it; ``width`` is that of a column."""
    font, left = ImageFont.load_default(LETTERS), 0
    for header, alike in groupby(headers):
        room = width * len(list(alike))
        text = header
        while font.getlength(text) > room - LETTERS // 2:
            text = text[:-1]
        draw.text((left, (HEADER - LETTERS) // 2), text, fill="black", font=font)
        left += room
