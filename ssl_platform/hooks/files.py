"""Files that hooks write for people to look at; a training goes on when one cannot be written."""

import itertools
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_platform.evaluation.class_tables import write_class_files

logger = logging.getLogger(__name__)

_file_numbers = itertools.count()  # of the event files of this process


def write_or_warn(path: Path, content: str | bytes) -> bool:
    """Write a whole file, or warn why that failed. Returns whether it was written."""
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        logger.warning("%s cannot be written (%s): the run goes on without", path, reason(error))
        return False
    return True


def write_class_files_or_warn(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write figures of each class into a run's directory, or warn why that failed."""
    try:
        write_class_files(folder, files)
    except OSError as error:
        path = error.filename or folder
        logger.warning("%s cannot be written (%s): the run goes on without", path, reason(error))


def reason(error: OSError) -> str:
    """The message of the system, without the path."""
    return error.strerror or str(error)


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

    def add_picture(self, step: int, tag: str, png: bytes, *, height: int, width: int) -> None:
        """Add a PNG file of an RGB picture, its size in pixels."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add_summary(step, [{"tag": tag, "image": picture}])

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
