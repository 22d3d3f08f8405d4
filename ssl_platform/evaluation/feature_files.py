"""Features of many images in files: written by all ranks at once, read back memory-mapped.

A folder holds one ``<layer>.npy`` per layer, (N, ...) in the order of the images, for
``np.load(path, mmap_mode="r")``; ``index.parquet`` with the image of each row (``image`` for
people, ``uri`` to open it: see `data.sets.paths`); and ``features.json``, the fields of
`FeatureFiles`. The folder is written under another name and renamed when it is complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.console.working import working
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.loader import Loader
from ssl_platform.errors import ConfigError, DataError
from ssl_platform.ops.arithmetic import full_float32
from ssl_platform.ops.image_size import height_and_width

ABOUT = "features.json"
INDEX = "index.parquet"
LOCK = ".lock"


@dataclass(frozen=True)
class FeatureFiles:
    """A folder of features.

    Attributes:
        num_images: rows of every layer.
        unreadable: rows of images that could not be read; they are NaN in every layer.
        shapes: of the features of one image, by layer.
        dtype: float16 or float32.
        provenance: fingerprints of weights, images and transform, which decide the values.
    """

    folder: Path
    num_images: int
    unreadable: list[int]
    shapes: dict[str, list[int]]
    dtype: str
    provenance: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "FeatureFiles | None":
        """The features in a folder; None if there are none, or not all of them."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            files = cls(folder, **about)
            for layer in files.shapes:
                files.array(layer)
        except (OSError, ValueError, TypeError):
            return None
        return files

    def array(self, layer: str) -> np.ndarray:
        """(N, ...) memory-mapped; writes to it stay in memory.

        Raises:
            OSError, ValueError: the file is gone or damaged.
        """
        array = np.load(_path(self.folder, layer), mmap_mode="c")
        if array.shape != (self.num_images, *self.shapes[layer]):
            raise ValueError(f"{layer} has the shape {array.shape}")
        return array

    def write_about(self) -> None:
        """Write ``features.json``."""
        about = {key: value for key, value in asdict(self).items() if key != "folder"}
        (self.folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


@torch.no_grad()
def write_features(
    folder: Path,
    embed: Callable[[Tensor], Mapping[str, Tensor]],
    loader: Loader,
    positions: np.ndarray,
    *,
    dtype: str,
    provenance: dict[str, str],
) -> FeatureFiles:
    """Compute the features of some images and write them; collective.

    Each rank writes its own rows; several machines need a shared file system.

    Args:
        folder: replaced if it exists.
        embed: (B, C, H, W) images to the features of each layer, (B, ...); in eval mode.
        loader: with R ranks, that of rank r gives positions r, r + R, r + 2R, ...
        positions: (N,) of the images in ``loader.dataset``, over all ranks.
        dtype: float16 or float32.
        provenance: see `FeatureFiles`.

    Raises:
        ConfigError: the folder cannot be written, or the disk is too small.
        DataError: features are not finite, or too large for float16; no image can be read.
    """
    is_first = distributed.rank() == 0
    partial = folder.with_name(f"{folder.name}.partial")
    shapes = _shapes(embed, loader)
    with _sole_writer(folder, partial) if is_first else nullcontext():
        if is_first:
            with _os_errors_as_config_errors(folder):
                _reserve(partial, len(positions), shapes, dtype)
        distributed.barrier()
        arrays = {layer: np.load(_path(partial, layer), mmap_mode="r+") for layer in shapes}
        _write_rows(arrays, embed, loader, dtype)
        unreadable = _unreadable_rows(loader, positions)
        if len(unreadable) == len(positions):
            raise DataError(f"{folder}: none of these {len(positions)} images can be read")
        distributed.barrier()
        files = FeatureFiles(partial, len(positions), unreadable, shapes, dtype, provenance)
        if is_first:
            for array in arrays.values():
                array[unreadable] = np.nan
                array.flush()
            with _os_errors_as_config_errors(folder):
                _write_index(partial / INDEX, loader.dataset, positions, unreadable)
                files.write_about()
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                (folder / LOCK).unlink()
        distributed.barrier()
    return replace(files, folder=folder)


def _write_rows(
    arrays: Mapping[str, np.ndarray],
    embed: Callable[[Tensor], Mapping[str, Tensor]],
    loader: Loader,
    dtype: str,
) -> None:
    """Write the rows of this rank: every R-th of R ranks."""
    row, step = distributed.rank(), distributed.world_size()
    with full_float32(), working("features", len(loader.dataset)) as work:
        for batch in loader:
            work.advance(step * len(batch.index))
            rows = slice(row, row + step * len(batch.index), step)
            for layer, values in embed(batch.crops[0]).items():
                names = map(loader.dataset.describe, batch.index.tolist())
                arrays[layer][rows] = _finite(values, dtype, layer, names)
            row = rows.stop


@contextmanager
def _sole_writer(folder: Path, partial: Path) -> Iterator[None]:
    """Refuse to write features that another job is writing; a lock ends with its process."""
    with _os_errors_as_config_errors(folder):
        partial.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(partial / LOCK, blocking=False):
            yield
    except Timeout as error:
        raise ConfigError([f"{folder}: another job is writing these features"]) from error


def _path(folder: Path, layer: str) -> Path:
    return folder / f"{layer}.npy"


def _shapes(
    embed: Callable[[Tensor], Mapping[str, Tensor]], loader: Loader
) -> dict[str, list[int]]:
    """Of the features of one image; computed, since a rank without images needs them too."""
    (size,) = loader.transform.crop_sizes
    image = torch.zeros(1, loader.dataset.channels, *height_and_width(size), device=loader.device)
    return {layer: list(values.shape[1:]) for layer, values in embed(image).items()}


def _reserve(folder: Path, num_images: int, shapes: Mapping[str, list[int]], dtype: str) -> None:
    """Create the files in their full size, so that a full disk fails now."""
    for left_over in folder.glob("[!.]*"):  # all but the lock
        left_over.unlink()
    for layer, shape in shapes.items():
        path = _path(folder, layer)
        array = open_memmap(path, "w+", dtype=np.dtype(dtype), shape=(num_images, *shape))
        array.flush()
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextmanager
def _os_errors_as_config_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError([f"{folder}: cannot be written ({error.strerror})"]) from error


def _finite(values: Tensor, dtype: str, layer: str, names: Iterable[str]) -> np.ndarray:
    """The rows as they are written; ``names`` are of their images."""
    is_bad = ~values.flatten(1).isfinite().all(dim=1)
    if is_bad.any():
        first = next(name for name, bad in zip(names, is_bad.tolist(), strict=True) if bad)
        raise DataError(f"features of layer {layer} are not finite, first of image {first}")
    rows = values.to(getattr(torch, dtype)).cpu().numpy()
    if not np.isfinite(rows).all():
        raise DataError(f"features of layer {layer} are too large for float16: use float32")
    return rows


def _unreadable_rows(loader: Loader, positions: np.ndarray) -> list[int]:
    """Rows of the images that any rank could not read."""
    is_bad = torch.zeros(len(loader.dataset), dtype=torch.uint8, device=loader.device)
    is_bad[loader.unreadable] = 1
    is_bad_anywhere = distributed.all_reduce_max(is_bad).bool().cpu().numpy()
    return np.flatnonzero(is_bad_anywhere[positions]).tolist()


def _write_index(
    path: Path, dataset: ImageDataset, positions: np.ndarray, unreadable: list[int]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    readable = np.ones(len(positions), dtype=bool)
    readable[unreadable] = False
    columns: dict[str, Any] = {
        "image": [dataset.describe(position) for position in positions.tolist()],
        "uri": [dataset.uri(position) for position in positions.tolist()],
        "position": positions,
        "readable": readable,
    }
    if not any(columns["uri"]):  # the images are no files
        del columns["uri"]
    if dataset.labels is not None:
        columns["label"] = dataset.labels[positions]
    parquet.write_table(pa.table(columns), path)
