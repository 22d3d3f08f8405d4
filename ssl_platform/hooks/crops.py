"""A picture of the crops that the model gets."""

from io import BytesIO
from typing import Annotated

import numpy as np
from annotated_types import Ge
from PIL import Image

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.registry import HOOKS


@HOOKS.register()
class CropPicture(Events):
    """After the first step, save the crops of a few images as ``crops.png``; loggers get them too.

    One row per image, one column per crop.

    Args:
        num_images: rows; no more than the batch size of the first rank.
    """

    def __init__(self, *, num_images: Annotated[int, Ge(1)]):
        self.num_images = num_images

    def on_step_end(self, run: Run) -> None:
        if run.step != 1 or distributed.rank() != 0 or run.batch is None:
            return
        columns = [run.train_loader.to_pixels(crop[: self.num_images]) for crop in run.batch.crops]
        high, wide = (max(crop.shape[axis] for crop in columns) for axis in (1, 2))
        rows, gap = len(columns[0]), max(2, max(high, wide) // 32)
        sheet = np.full((rows * (high + gap), len(columns) * (wide + gap), 3), 255, np.uint8)
        for column, crops in enumerate(columns):
            for row, crop in enumerate(crops):
                top, left = row * (high + gap), column * (wide + gap)
                sheet[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        png = BytesIO()
        Image.fromarray(sheet).save(png, "PNG")
        write_or_warn(run.output_dir / "crops.png", png.getvalue())
        run.loggers.image("crops", sheet, run.step)
