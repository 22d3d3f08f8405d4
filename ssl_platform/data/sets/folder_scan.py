"""Finds the images under a folder, and counts what else lies there."""

import errno
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import features

from ssl_platform.console.working import working
from ssl_platform.data.sets.file_table import Names

HEIC = (b".heic", b".heif", b".hif")
_OPTIONAL = {  # those that Pillow reads only where it was built so
    (b".webp",): features.check("webp"),
    (b".avif",): features.check("avif"),
    (b".jp2", b".j2k", b".j2c", b".jpc", b".jpf", b".jpx"): features.check("jpg_2000"),
    HEIC: find_spec("pillow_heif") is not None,
}
EXTENSIONS = (
    b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".apng", b".ppm", b".pgm", b".pbm", b".pnm",
    b".bmp", b".dib", b".tif", b".tiff", b".gif",
    *(ending for endings, is_read in _OPTIONAL.items() if is_read for ending in endings),
)  # fmt: skip
LONGEST_EXTENSION = max(map(len, EXTENSIONS))
# what an image without an ending starts with
_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]|P[1-6]\s"
    rb"|BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|.{4}ftypavi[fs]"
    + (rb"|.{4}ftyp(?:hei[cxms]|mif1)" if find_spec("pillow_heif") else b""),
    re.DOTALL,
)
_SNIFFED = 32  # bytes
# folders that systems and tools leave behind, in lower case
LITTER = frozenset({
    b"__macosx", b"@eadir", b"@tmp", b"@recycle", b"@recently-snapshot", b"#recycle", b"#snapshot",
    b"lost+found", b"$recycle.bin", b"recycler", b"system volume information", b"__pycache__",
    b"@__thumb", b"network trash folder", b"temporary items",
})  # fmt: skip
_PLAIN_ENDING = re.compile(rb"\.(?!\d+$)[a-z0-9_+-]{1,10}")


class FolderIndex(NamedTuple):
    """The images under a folder, at any depth; folders and the names in each are sorted."""

    folders: list[bytes]  # every folder, relative to the root, which is b"" and comes first
    modified: np.ndarray  # (F,) int64, when each folder's entries last changed, ns
    counts: np.ndarray  # (F,) int64, images that lie directly in it
    names: Names  # of the images
    skipped: dict[str, int]  # how many of what was left out: {".txt": 2, "__MACOSX/": 1}


def scan(root: bytes) -> FolderIndex:
    """Look through a folder; links to folders are followed.

    An image is known by its ending; a file without one by its first bytes. Left out are hidden
    files and folders and those of `LITTER`, which are not looked into.

    Raises:
        OSError: a folder cannot be read.
    """
    skipped: Counter[str] = Counter()
    folders = []
    with working(f"looking through {_text(root)}") as work:
        for folder in _walk(root, skipped):
            folders.append(folder)
            work.advance(len(folder.names.sizes))
    folders.sort(key=lambda folder: folder.parts)
    return FolderIndex(
        folders=[b"/".join(folder.parts) for folder in folders],
        modified=np.array([folder.modified for folder in folders], dtype=np.int64),
        counts=np.array([len(folder.names.sizes) for folder in folders], dtype=np.int64),
        names=Names.join(folder.names for folder in folders),
        skipped=dict(sorted(skipped.items(), key=lambda item: (-item[1], item[0]))),
    )


class _Folder(NamedTuple):
    parts: tuple[bytes, ...]  # below the root
    modified: int
    names: Names


def _walk(root: bytes, skipped: Counter[str]) -> Iterator[_Folder]:
    """Every folder under ``root``, itself included, without the rounds of a symbolic link."""
    pending: list[tuple[tuple[bytes, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while pending:
        parts, ancestors = pending.pop()
        folder = os.path.join(root, *parts)
        try:
            status = os.stat(folder)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            skipped["too deep to be reached"] += 1
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            skipped["leading in a circle"] += 1
            continue
        with os.scandir(folder) as iterator:
            entries = list(iterator)
        names, others = _files(entries)
        for entry in others:
            if not _is_folder(entry):
                skipped["neither file nor folder"] += 1
            elif entry.name.startswith(b".") or entry.name.lower() in LITTER:
                skipped[f"{_text(entry.name)}/"] += 1
            else:
                pending.append(((*parts, entry.name), ancestors | {identity}))
        yield _Folder(parts, status.st_mtime_ns, Names.pack(_images(folder, names, skipped)))


def _files(entries: list[os.DirEntry[bytes]]) -> tuple[list[bytes], list[os.DirEntry[bytes]]]:
    """Names of the files, and the other entries."""
    try:
        names = [entry.name for entry in entries if entry.is_file()]
    except OSError:  # of a link that leads in a circle, or where nobody may look
        names = []
    if len(names) == len(entries):
        return names, []
    # a link to nothing counts as a file, so that it is reported and not passed over
    others = [entry for entry in entries if _is_folder(entry) or not _is_file(entry)]
    known = {entry.name for entry in others}
    return [entry.name for entry in entries if entry.name not in known], others


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    """Whether it is a file, or a link to what is not there or cannot be looked at."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _images(folder: bytes, names: list[bytes], skipped: Counter[str]) -> list[bytes]:
    """The names of images, sorted."""
    names.sort()
    # hidden files; looking at each name would cost a twentieth of the whole scan
    start, end = bisect_left(names, b"."), bisect_left(names, b"/")
    if end > start:
        skipped["hidden"] += end - start
        del names[start:end]
    # Names end in few ways. Where all are those of images, no name is looked at by itself.
    if all(map(_ends_an_image, {name[-LONGEST_EXTENSION:] for name in names})):
        return names
    images = []
    for name in names:
        ending = os.path.splitext(name)[1].lower()
        kind = None if _ends_an_image(ending) else _kind(ending) or _looked_at(folder, name)
        if kind is None:
            images.append(name)
        else:
            skipped[kind] += 1
    return images


@cache  # names end in few ways
def _ends_an_image(end: bytes) -> bool:
    return end.lower().endswith(EXTENSIONS)


@cache
def _kind(ending: bytes) -> str:
    """What a file with such an ending is counted as; unusual endings are counted together."""
    return ending.decode() if not ending or _PLAIN_ENDING.fullmatch(ending) else "of other endings"


def _looked_at(folder: bytes, name: bytes) -> str | None:
    """What a file without an ending is counted as; None for an image."""
    try:
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        is_gone = error.errno in (errno.ENOENT, errno.ELOOP)
        return "leading nowhere" if is_gone else "not to be opened"
    try:
        starts = os.read(descriptor, _SNIFFED)
    finally:
        os.close(descriptor)
    return None if _STARTS.match(starts) else "without an ending"


def _text(name: bytes) -> str:
    return os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
