"""What hooks write for people to look at. A training does not end for want of it."""

import itertools
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_numbers = itertools.count()  # of the event files of this process


def write_or_warn(path: Path, content: str | bytes) -> bool:
    """Write a whole file; a warning says why it could not be. Returns whether it is there."""
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        logger.warning("%s cannot be written (%s): the run goes on without", path, reason(error))
        return False
    return True


def reason(error: OSError) -> str:
    """Why the system refused, without the path."""
    return error.strerror or str(error)


class EventFile:
    """A new file of events in a folder that TensorBoard reads.

    It is written by the thread that calls, so that an error is raised to the caller. In torch's
    SummaryWriter a thread of its own ends with a traceback, and the caller learns of it later.

    Args:
        folder: is made where it is missing.
        first_step: from this step on TensorBoard is to forget what older files have.

    Raises:
        OSError: it cannot be written; by all methods.
    """

    def __init__(self, folder: Path, *, first_step: int | None = None):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        writer = f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{writer}"
        self._add(file_version="brain.Event:2")
        if first_step is not None:
            self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
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

        event = Event(wall_time=time.time(), **fields)
        with self.path.open("ab") as file:  # anew each time: a folder may be gone
            RecordWriter(file).write(event.SerializeToString())
