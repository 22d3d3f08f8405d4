"""A part of a folder of images: the few labels of semi-supervised learning."""

import os
from pathlib import Path

import numpy as np

from ssl_platform.data.image_folder import FileTable, ImageFiles, ImageFolder, existing
from ssl_platform.registry import DATASETS

MAX_NAMED = 3  # files in an error message


@DATASETS.register()
class StratifiedSubset(ImageFiles):
    """The same part of every class of a folder, at least one image of each, drawn by a seed.

    Args:
        path: folder with a folder for each class, as `ImageFolder`.
        fraction: of each class's images, rounded.
        seed: of the draw.

    Raises:
        ValueError: no such folder, no class folders, or a fraction outside (0, 1].
    """

    def __init__(self, *, path: str, fraction: float, seed: int):
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: above 0, up to 1, e.g. 0.01")
        self.path = path
        whole = ImageFolder(path=path)
        if whole.labels is None:
            raise ValueError(f"path={path}: some images are in no class folder, so have no label")
        counts = np.bincount(whole.labels)
        wanted = np.maximum(1, np.rint(fraction * counts)).astype(np.int64)
        shuffled = np.random.default_rng(seed).permutation(len(whole))
        by_class = shuffled[np.argsort(whole.labels[shuffled], kind="stable")]
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        place = np.arange(len(whole)) - starts  # of a image among those of its class
        chosen = np.sort(by_class[place < wanted[whole.labels[by_class]]])
        self.files = _table([whole.files[index] for index in chosen.tolist()])
        self.labels = whole.labels[chosen]


@DATASETS.register()
class NamedSubset(ImageFiles):
    """The images that a list names by file name alone, as the 1 % and 10 % lists of ImageNet that
    came with SimCLR do: ``n01440764_10183.JPEG``, which is in the class folder ``n01440764``.

    Args:
        path: folder with a folder for each class; all of them are classes, listed or not.
        list_file: text file, one name a line.

    Raises:
        ValueError: no such folder or file, or a listed image is not there.
    """

    def __init__(self, *, path: str, list_file: str):
        self.path = path
        root = os.fsencode(existing("path", path, directory=True))
        names = Path(existing("list_file", list_file, directory=False)).read_bytes().split()
        if not names:
            raise ValueError(f"list_file={list_file}: lists no image")
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        number = {name: label for label, name in enumerate(classes)}
        paths = [os.path.join(root, name.partition(b"_")[0], name) for name in sorted(names)]
        missing = [p for p in paths if not os.path.isfile(p)]
        if missing:
            some = ", ".join(os.fsdecode(p) for p in missing[:MAX_NAMED])
            raise ValueError(
                f"list_file={list_file}: {len(missing)} of {len(paths)} images are not in {path}, "
                f"e.g. {some}"
            )
        self.files = _table(paths)
        folders = (os.path.basename(os.path.dirname(p)) for p in paths)
        self.labels = np.array([number[folder] for folder in folders], dtype=np.int64)


def _table(paths: list[bytes]) -> FileTable:
    """The files in the order given, in which those of one folder are consecutive."""
    folders: dict[bytes, list[bytes]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        folders.setdefault(folder, []).append(name)
    return FileTable(list(folders), list(folders.values()))
