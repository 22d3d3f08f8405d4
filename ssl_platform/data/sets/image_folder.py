"""Images in files: what all sets of files have in common, and folders of images."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate, takewhile

import numpy as np

from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.decode import printable, read_file
from ssl_platform.data.decoding.pixels import Notes
from ssl_platform.data.sets.file_index import folder_index
from ssl_platform.data.sets.file_table import FileTable
from ssl_platform.data.sets.folder_scan import EXTENSIONS, HEIC, FolderIndex
from ssl_platform.data.sets.paths import uri_of
from ssl_platform.errors import first_few
from ssl_platform.registry import DATASETS

NUM_PROBES = 8
LISTS = (".txt", ".csv", ".tsv", ".lst", ".list")
NUM_NAMED = 5  # parts of a set in a message
LONGEST_NAMED = 100  # letters of a name
NUM_KINDS = 10  # of what was left out
_SPLIT = re.compile(
    rb"(?:(?P<train>train(?:ing|val)?|unlabell?ed)|val(?:id(?:ation)?)?|test(?:ing)?|eval|dev)"
    rb"(?:[-_ ]?(?:set|data|images|\d{1,4}))?",
    re.IGNORECASE,
)


class ImageFiles(ImageDataset):
    """Any set that is a table of files, which the constructor fills."""

    path: str
    files: FileTable

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Of each image: as many as are asked for."""
        return self.pixels.channels

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> np.ndarray:
        return self.read_noting(index, Notes())

    def read_noting(self, index: int, notes: Notes) -> np.ndarray:
        return read_file(self.files[index], self.pixels, notes)

    def describe(self, index: int) -> str:
        return printable(self.files[index])

    def uri(self, index: int) -> str | None:
        return uri_of(self.files[index])

    def stamp(self, index: int) -> tuple[int, int] | None:
        try:
            status = os.stat(self.files[index])
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def fingerprint(self) -> str:
        return super().fingerprint() + self.files.digest().hex()

    def probe(self) -> None:
        tried = np.unique(np.linspace(0, len(self) - 1, NUM_PROBES).astype(np.int64))
        first = None
        for index in tried.tolist():
            try:
                self.read(index)
                return
            except UnreadableImage as error:
                first = first or error
        assert first is not None
        raise ValueError(
            f"path={self.path}: none of the {len(tried)} images tried can be read, "
            f"first {first.name}: {first.reason}"
        )


@DATASETS.register()
class ImageFolder(ImageFiles):
    """All images under a folder, at any depth; symbolic links to folders are followed.

    The class of an image is its first-level folder, numbered by sorted name as in torchvision; a
    folder without images is no class. Images directly in ``path`` make the set an unlabelled one,
    unless they are fewer than the classes: then they are strays, and left out. `scan` says what
    else is.

    Raises:
        ValueError: there is no such folder, no image in it, or parts of a set (train/, val/) are
            in the place of classes.
    """

    def __init__(self, *, path: str):
        self.path = path
        if path.lower().endswith(LISTS) and os.path.isfile(os.path.expanduser(path)):
            raise ValueError(
                f"path={path}: not a directory; a list is read by data=list data.train.path={path}"
            )
        root = os.fsencode(existing("path", path, directory=True))
        index = _index_of(path, root)
        images: Counter[bytes] = Counter()  # by first-level folder
        for folder, count in zip(index.folders, index.counts.tolist(), strict=True):
            images[first_level(folder)] += count
        classes = sorted(name for name, count in images.items() if name and count)
        self._wrapped = _refuse_splits(path, index)
        self._left_out: dict[str, int] = {}
        self._beside = _names_in_root(index) if classes else []
        if 0 < len(self._beside) < len(classes):
            self._left_out[f"beside the class folders ({some(self._beside)})"] = len(self._beside)
            index = _without_root(index)
        empty = sorted(name for name, count in images.items() if name and not count)
        if empty:
            folders = "folder" if len(empty) == 1 else "folders"
            self._left_out[f"{folders} without images ({some(empty)})"] = len(empty)
        self._left_out |= index.skipped
        self._take(root, index, classes)

    def _take(self, root: bytes, index: FolderIndex, classes: Sequence[bytes]) -> None:
        folders = [f for f, count in zip(index.folders, index.counts, strict=True) if count]
        counts = index.counts[index.counts > 0]
        self.files = FileTable([os.path.join(root, f) for f in folders], counts, index.names)
        self.labels = None
        if folders[0]:  # no image lies in the root itself
            number = {name: label for label, name in enumerate(classes)}
            self.classes = [printable(name) for name in classes]
            labels = np.array([number[first_level(f)] for f in folders], dtype=np.int64)
            self.labels = np.repeat(labels, counts)

    def summary(self) -> str:
        what = super().summary()
        if self.labels is None and self._beside:
            what += (
                f" without classes, for {len(self._beside)} of them lie beside the folders "
                f"({some(self._beside)}): moved into folders, or away, they leave each folder a "
                "class"
            )
        if self._wrapped:
            what += f"; {self._wrapped}"
        return f"{what}; left out: {counted(self._left_out)}" if self._left_out else what


def existing(option: str, path: str, *, directory: bool) -> str:
    """``path`` with ``~`` spelled out, if it is there and of the right kind.

    Args:
        option: what an error calls it.
    """
    kind, expanded = "directory" if directory else "file", os.path.expanduser(path)
    if not os.path.exists(expanded):
        raise ValueError(f"{option}={path}: no such {kind} (working directory: {os.getcwd()})")
    if os.path.isdir(expanded) != directory:
        raise ValueError(f"{option}={path}: not a {kind}")
    return expanded


def first_level(folder: bytes) -> bytes:
    """The folder below the root that another one is or lies in."""
    return folder.partition(b"/")[0]


def some(names: Sequence[bytes]) -> str:
    """The first few names, for a message."""
    return first_few([printable(name)[:LONGEST_NAMED] for name in names])


def counted(left_out: Mapping[str, int]) -> str:
    """What was left out, in words: ``60 .heic, 2 hidden``."""
    kinds = []
    for kind, count in left_out.items():
        is_heic = kind.encode() in HEIC
        kinds.append(f"{count} {kind}{' (pip install pillow-heif reads them)' if is_heic else ''}")
    return first_few(kinds, NUM_KINDS) + (" kinds" if len(kinds) > NUM_KINDS else "")


def _index_of(path: str, root: bytes) -> FolderIndex:
    try:
        index = folder_index(root)
    except OSError as error:
        raise ValueError(
            f"path={path}: cannot look into {printable(os.fsencode(error.filename))}: "
            f"{error.strerror}; make it readable, or move it away"
        ) from error
    if not len(index.names.sizes):
        looked_for = ", ".join(extension.decode() for extension in EXTENSIONS)
        raise ValueError(
            f"path={path}: no image in this folder or below it (looked for {looked_for})"
            + (f"; left out: {counted(index.skipped)}" if index.skipped else "")
        )
    return index


def _names_in_root(index: FolderIndex) -> list[bytes]:
    sizes = index.names.sizes[: index.counts[0]].tolist()
    text, ends = index.names.text[: sum(sizes)].tobytes(), list(accumulate(sizes))
    return [text[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _without_root(index: FolderIndex) -> FolderIndex:
    """Without the images that lie in the root itself."""
    counts = index.counts.copy()
    counts[0] = 0
    return index._replace(counts=counts, names=index.names.without_first(int(index.counts[0])))


def _refuse_splits(path: str, index: FolderIndex) -> str:
    """Refuse train/ and val/ in the place of classes, also where one folder lies around them.

    Returns:
        A note where one folder lies around several others, which are then no classes; else "".
    """
    folders = [f for f, count in zip(index.folders, index.counts, strict=True) if f and count]
    is_wrapped = False
    while folders:
        names = sorted({first_level(folder) for folder in folders})
        is_nested = not is_wrapped and any(b"/" in folder for folder in folders)
        _refuse_parts(path, names, is_nested=is_nested)
        if len(names) > 1:
            what = f"the {len(names)} folders in it ({some(names)}) become classes with path={path}"
            return what if is_wrapped else ""
        if names[0] in folders or index.counts[0]:  # images lie beside what is deeper
            return ""
        path, is_wrapped = os.path.join(path, printable(names[0])), True
        folders = [folder.partition(b"/")[2] for folder in folders]
    return ""


def _refuse_parts(path: str, classes: Sequence[bytes], *, is_nested: bool) -> None:
    start = _shared_start(classes)  # of seg_train and seg_test
    matches = {name: _SPLIT.fullmatch(name[start:]) for name in classes}
    splits = [name for name, match in matches.items() if match]
    train = [name for name, match in matches.items() if match and match["train"]]
    others = [name for name in splits if name not in train]
    all_are_splits = len(splits) == len(classes) and (len(splits) > 1 or is_nested)
    if not splits or not (all_are_splits or (train and others)):
        return
    names = [*train[:1], *sorted(others, key=lambda name: b"val" not in name.lower())]
    options = [f"data.train.path={_below(path, names[0])}"]
    if len(names) > 1:
        options.append(f"data.val={{name: ImageFolder, path: {_below(path, names[1])}}}")
    parts = " and ".join(f"{printable(name)}/" for name in splits[:NUM_NAMED])
    raise ValueError(
        f"path={path}: {parts} in it {'are parts' if len(splits) > 1 else 'is a part'} of a set, "
        f"and no class; write {' '.join(map(shlex.quote, options))}"
    )


def _shared_start(names: Sequence[bytes]) -> int:
    """Where what differs begins in some sorted names, after a mark that ends a word."""
    if len(names) < 2:
        return 0
    same = takewhile(
        lambda letters: letters[0] == letters[1], zip(names[0], names[-1], strict=False)
    )
    size = len(list(same))
    return max(names[0].rfind(mark, 0, size) for mark in (b"_", b"-", b" ", b".")) + 1


def _below(path: str, name: bytes) -> str:
    """A path for the command line, quoted where Hydra wants it."""
    whole = os.path.join(path, printable(name))
    if re.fullmatch(r"[\w./~-]+", whole):
        return whole
    escaped = whole.replace('"', '\\"')
    return f'"{escaped}"'
