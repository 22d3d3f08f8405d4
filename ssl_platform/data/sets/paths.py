"""Paths as text that any program can open again: ``file:`` URIs (RFC 8089).

A name on Linux is any bytes without ``/`` and NUL. What a message prints of it cannot always be
opened; its URI can, here by `path_of`, elsewhere as
``urllib.parse.unquote_to_bytes(uri.removeprefix("file://"))``.
"""

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

SCHEME = "file://"


def uri_of(path: bytes, folder: bytes | None = None) -> str:
    """The URI of a file, in ASCII.

    Args:
        folder: where a relative path begins; None for the working directory.
    """
    # not abspath: it takes "link/.." for the folder of the link
    return SCHEME + quote_from_bytes(os.path.join(folder or os.getcwdb(), path))


def path_of(uri: str) -> bytes:
    """The absolute path that `uri_of` was given.

    Raises:
        ValueError: it is no URI of a file.
    """
    if not uri.startswith(f"{SCHEME}/"):
        raise ValueError(f"{uri!r} is no URI of a file: it begins with {SCHEME}/")
    return unquote_to_bytes(uri.removeprefix(SCHEME))
