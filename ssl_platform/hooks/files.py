"""Files that hooks write for people to look at; a training goes on when one cannot be written."""

import logging
from pathlib import Path

from ssl_platform.files import reason

logger = logging.getLogger(__name__)


def write_or_warn(path: Path, content: str | bytes) -> bool:
    """Write a whole file, or warn why that failed. Returns whether it was written."""
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        logger.warning("%s cannot be written (%s): the run goes on without", path, reason(error))
        return False
    return True
