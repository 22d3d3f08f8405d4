"""Files as bytes."""

import re
from pathlib import Path


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)


def is_web_page(path: Path) -> bool:
    """Whether a file is what servers send in place of a file: a page with a message or a login."""
    return re.match(rb"\s*<(!doctype|html|\?xml|!--)", first_bytes(path), re.IGNORECASE) is not None
