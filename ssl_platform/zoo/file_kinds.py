"""Recognise kinds of files by their first bytes, whatever they are called."""

import re
from pathlib import Path

UNPACK = "unpack it, and name the checkpoint that is in it"
# offset, the bytes there, what the file is and what to do
KINDS = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file; git lfs pull gets that"),
    (0, b"\x1f\x8b", f"compressed by gzip; {UNPACK}"),
    (0, b"BZh", f"compressed by bzip2; {UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"compressed by xz; {UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"compressed by zstd; {UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {UNPACK}"),
    (0, b"Rar!", f"a rar archive; {UNPACK}"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes them; wanted is a checkpoint of torch"),
    (0, b"GGUF", "a GGUF file; wanted is a checkpoint of torch, or safetensors"),
    (0, b"\x93NUMPY", "one array of NumPy; wanted are tensors by name, a state dict"),
)
TAR_OFFSET, TAR = 257, b"ustar"


def first_bytes(path: Path) -> bytes:
    """The beginning of a file, 512 bytes at most, which is enough for the functions below."""
    with path.open("rb") as file:
        return file.read(512)


def is_web_page(path: Path) -> bool:
    """Whether a file is HTML or XML, as servers send instead of a file: a message or a login."""
    return re.match(rb"\s*<(!doctype|html|\?xml|!--)", first_bytes(path), re.IGNORECASE) is not None


def other_kind(head: bytes) -> str | None:
    """What a file with these first bytes is, and what to do; None if it may be a checkpoint."""
    texts = (text for offset, magic, text in KINDS if head[offset:].startswith(magic))
    return next(texts, None)


def is_tar(head: bytes) -> bool:
    """Whether a file with these first bytes is a tar archive."""
    return head[TAR_OFFSET:].startswith(TAR)
