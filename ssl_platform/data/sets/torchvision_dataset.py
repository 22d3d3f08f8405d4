"""The classification sets of torchvision, under one interface."""

import difflib
import inspect
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.decode import pixels_of, read_file
from ssl_platform.data.decoding.pixels import Notes
from ssl_platform.registry import DATASETS

WHOLE = "all"  # the split of sets that have none
LABEL_ATTRIBUTES = ("targets", "labels", "_labels")  # torchvision has no one name for them


@DATASETS.register()
class TorchvisionDataset(ImageDataset):
    """Any set of ``torchvision.datasets`` that gives an image and one class.

    Args:
        dataset: class in torchvision, such as CIFAR10, STL10, Food101.
        path: folder that holds (or shall hold) the files, laid out as torchvision does.
        split: as torchvision calls it: train, test, ..., ``unlabeled`` of STL10; ``all`` for sets
            without splits.
        download: let torchvision fetch what is missing.

    Raises:
        ValueError: unknown set or split, or files missing.
    """

    def __init__(self, *, dataset: str, path: str, split: str, download: bool):
        self.dataset, self.split = dataset, split
        self._source = _build(dataset, path, split, download)
        self.labels = _labels(self._source)
        self.classes = getattr(self._source, "classes", None)
        self._files = _files(self._source)

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Of each image: as many as are asked for."""
        return self.pixels.channels

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> np.ndarray:
        return self.read_noting(index, Notes())

    def read_noting(self, index: int, notes: Notes) -> np.ndarray:
        if self._files is not None:
            return read_file(os.fsencode(_path(self._files[index])), self.pixels, notes)
        try:
            image, _ = self._source[index]
            return pixels_of(image, self.pixels, notes)
        except (OSError, ValueError, SyntaxError) as error:
            reason = " ".join(str(error).split())
            raise UnreadableImage(self.describe(index), reason) from error

    def describe(self, index: int) -> str:
        return f"{self.dataset}/{self.split}[{index}]"


def _files(source: Any) -> Sequence[Any] | None:
    """The list of files, one for each image, that a set of torchvision keeps, if it does.

    torchvision opens them itself, without a say in what becomes of transparency or orientation.
    """
    for values in vars(source).values():
        if isinstance(values, list) and 0 < len(values) == len(source):
            ends = [_path(values[0]), _path(values[-1])]
            if all(isinstance(path, str | Path) and os.path.isfile(path) for path in ends):
                return values
    return None


def _path(entry: Any) -> Any:
    """Of an entry of such a list, which may have a class beside the path."""
    return entry[0] if isinstance(entry, tuple) else entry


def _build(dataset: str, path: str, split: str, download: bool) -> Any:
    from torchvision import datasets

    names = _names(datasets)
    if dataset not in names:
        close = difflib.get_close_matches(dataset, names, n=1, cutoff=0.4)
        hint = f", did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"
        raise ValueError(f"dataset={dataset}: torchvision has no such set of labelled images{hint}")
    options = _split_option(
        dataset, split, inspect.signature(getattr(datasets, dataset)).parameters
    )
    try:
        if download:
            os.makedirs(path, exist_ok=True)
            # the ranks of a machine all want the files: the first fetches, the others find them
            with FileLock(os.path.join(path, ".download.lock")), members_stay_inside():
                return getattr(datasets, dataset)(path, download=True, **options)
        return getattr(datasets, dataset)(path, **options)
    except (OSError, RuntimeError, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        advice = "" if download else f"; set download: true, or point path to a copy of {dataset}"
        raise ValueError(
            f"path={path}: {reason} (working directory: {os.getcwd()}){advice}"
        ) from error
    except ValueError as error:
        raise ValueError(f"split={split}: {' '.join(str(error).split())}") from error


def _names(datasets: Any) -> list[str]:
    """Names of the sets that can be fetched and have no more to say than root and split."""
    names = []
    for name in datasets.__all__:
        parameters = inspect.signature(getattr(datasets, name)).parameters
        required = [p for p in parameters.values() if p.default is p.empty]
        if "download" in parameters and "root" in parameters and len(required) == 1:
            names.append(name)
    return sorted(names)


def _split_option(dataset: str, split: str, parameters: Any) -> dict[str, Any]:
    if "split" in parameters:
        return {"split": split}
    if "train" in parameters:
        if split not in ("train", "test"):
            raise ValueError(f"split={split}: {dataset} has the splits train and test")
        return {"train": split == "train"}
    if split != WHOLE:
        raise ValueError(f"split={split}: {dataset} has no splits, set split: {WHOLE}")
    return {}


def _labels(source: Any) -> np.ndarray | None:
    values = next(
        (v for a in LABEL_ATTRIBUTES if (v := getattr(source, a, None)) is not None), None
    )
    if values is None:
        return None
    labels = np.asarray(values).astype(np.int64)
    return None if labels.ndim != 1 or (labels < 0).all() else labels


@contextmanager
def members_stay_inside() -> Iterator[None]:
    """Have tar archives, which torchvision unpacks as they are, refused when a member leads out."""
    before = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before
