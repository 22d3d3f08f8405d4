"""Files that hooks write for people to look at; a training goes on when one cannot be written."""

import logging
from pathlib import Path

from torch import Tensor

from ssl_platform.data.dataset import ImageDataset
from ssl_platform.evaluation.class_tables import Tables, class_files, class_names, write_class_files
from ssl_platform.files import reason, replacing

logger = logging.getLogger(__name__)


def write_or_warn(path: Path, content: str | bytes) -> bool:
    """Write a whole file, or warn why that failed. Returns whether it was written."""
    try:
        with replacing(path) as partial:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        logger.warning("%s cannot be written (%s): the run goes on without", path, reason(error))
        return False
    return True


def write_tables_or_warn(
    folder: Path, tables: Tables, dataset: ImageDataset, labels: Tensor
) -> None:
    """Write figures of each class into a run's directory, or warn why that failed.

    Args:
        tables: see `class_files`.
        dataset: whose classes they are.
        labels: (N,) int64 of the images that were tested.
    """
    files = class_files(tables, class_names(dataset), labels.bincount().tolist())
    try:
        write_class_files(folder, files)
    except OSError as error:
        path = error.filename or folder
        logger.warning("%s cannot be written (%s): the run goes on without", path, reason(error))
