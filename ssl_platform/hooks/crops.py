"""A picture of what the model is shown."""

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ssl_platform import distributed
from ssl_platform.events import Events
from ssl_platform.registry import HOOKS

if TYPE_CHECKING:
    from ssl_platform.engine import Run

logger = logging.getLogger(__name__)


@HOOKS.register()
class CropPicture(Events):
    """After the first step, save the crops of a few images as ``crops.png`` and to TensorBoard.

    One row per image, one column per crop.

    Args:
        num_images: rows; at most the batch of the first rank.
    """

    def __init__(self, *, num_images: int):
        if num_images < 1:
            raise ValueError(f"num_images={num_images}: at least 1")
        self.num_images = num_images

    def on_step_end(self, run: "Run") -> None:
        if run.step != 1 or distributed.rank() != 0 or run.batch is None:
            return
        columns = [run.train_loader.to_pixels(crop[: self.num_images]) for crop in run.batch.crops]
        side = max(crop.shape[1] for crop in columns)
        rows, gap = len(columns[0]), max(2, side // 32)
        sheet = np.full((rows * (side + gap), len(columns) * (side + gap), 3), 255, np.uint8)
        for column, crops in enumerate(columns):
            for row, crop in enumerate(crops):
                top, left = row * (side + gap), column * (side + gap)
                sheet[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        try:
            Image.fromarray(sheet).save(run.output_dir / "crops.png")
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(run.output_dir / "tensorboard")) as writer:
                writer.add_image("Samples/crops", torch.from_numpy(sheet), 1, dataformats="HWC")
        except OSError as error:
            logger.warning("the picture of the crops cannot be written: %s", error)
