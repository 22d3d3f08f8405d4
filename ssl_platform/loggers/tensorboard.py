"""The figures and pictures of a training as files that TensorBoard reads."""

import itertools
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_platform.files import reason
from ssl_platform.loggers.base import POSITION, Logger, RunInfo
from ssl_platform.loggers.projector import write_projector
from ssl_platform.registry import LOGGERS

logger = logging.getLogger(__name__)

TAGS = {  # the names that VISSL's users have on their boards
    "loss": "Training/Loss",
    "lr": "Training/Learning_rate",
    "images_per_second": "Speed/img_per_sec",
    "data_wait": "Speed/data_wait",
    "uniform_loss": "Training/ln_K",
    "crops": "Samples/crops",
    "prototypes": "Samples/prototypes",
}

_file_numbers = itertools.count()  # of the event files of this process


@LOGGERS.register()
class TensorBoard(Logger):
    """Event files in the folder ``tensorboard/`` of the run; Custom Scalars has loss and ln K.

    Its projector shows where the model puts a sample of the images, as it was latest.
    A run that is resumed writes a new file, which tells TensorBoard to forget the later steps of
    the older ones.

    Args:
        enabled: write them.
    """

    def __init__(self, *, enabled: bool):
        self.enabled = enabled

    def start(self, run: RunInfo) -> None:
        first_step = run.step + 1 if run.step else None
        self.folder = run.output_dir / "tensorboard"
        self.events = EventFile(self.folder, first_step=first_step)
        self.has_layout = False

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        if "uniform_loss" in figures and not self.has_layout:
            self.events.add_chart(step, "loss and ln K", [TAGS["loss"], TAGS["uniform_loss"]])
            self.has_layout = True
        scalars = {TAGS.get(k, k): value for k, value in figures.items() if k not in POSITION}
        self.events.add_scalars(step, scalars)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        self.events.add_image(step, TAGS.get(name, name), image)

    def embeddings(
        self, name: str, vectors: np.ndarray, images: np.ndarray, labels: Sequence[str], step: int
    ) -> None:
        write_projector(self.folder, name, vectors, images, labels)


class EventFile:
    """A new file of events in a folder that TensorBoard reads; warns and ends at the first error.

    The calling thread writes it. SummaryWriter of torch writes in a thread of its own, which prints
    a traceback when the disk is full.

    Args:
        folder: is created if it does not exist.
        first_step: TensorBoard drops what older files have from this step on.
    """

    def __init__(self, folder: Path, *, first_step: int | None = None):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        writer = f"{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}"
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{writer}"
        self.is_open = True
        with suppress(OSError):  # _add() warns of it
            folder.mkdir(parents=True, exist_ok=True)
        self._add(file_version="brain.Event:2")
        if first_step is not None:
            self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to the curve of each tag."""
        self._add_summary(step, [{"tag": tag, "simple_value": v} for tag, v in values.items()])

    def add_image(self, step: int, tag: str, image: np.ndarray) -> None:
        """Add a picture, (H, W, 3) uint8."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        png = BytesIO()
        Image.fromarray(image).save(png, "PNG")
        height, width, _ = image.shape
        picture = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=png.getvalue()
        )
        self._add_summary(step, [{"tag": tag, "image": picture}])

    def add_chart(self, step: int, title: str, tags: list[str]) -> None:
        """Draw the curves of some tags in one chart, under Custom Scalars."""
        from torch.utils.tensorboard.summary import custom_scalars

        layout = {"Training": {title: ["Multiline", tags]}}
        self._add(step=step, summary=custom_scalars(layout))

    def _add_summary(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(step=step, summary=Summary(value=[Summary.Value(**v) for v in values]))

    def _add(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if not self.is_open:  # half an event may be at its end, and readers stop there
            return
        event = Event(wall_time=time.time(), **fields)
        try:
            with self.path.open("ab") as file:
                RecordWriter(file).write(event.SerializeToString())
        except OSError as error:
            self.is_open = False
            logger.warning(
                "%s cannot be written (%s): TensorBoard gets no more",
                self.path.parent,
                reason(error),
            )
