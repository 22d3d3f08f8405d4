"""Features of many images in files: written by all ranks at once, read back without a copy.

A folder holds one ``<layer>.npy`` per layer, (N, ...) in the order of the images and opened with
``np.load(path, mmap_mode="r")``; ``index.parquet``, what each row is (``image`` is to be looked
at, ``uri`` to be opened: `data.sets.paths`); and ``features.json``, what the features are
of. It is written under another name and renamed when it is complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.loader import Loader
from ssl_platform.errors import ConfigError, DataError

ABOUT = "features.json"
INDEX = "index.parquet"
LOCK = ".lock"


@dataclass(frozen=True)
class FeatureFiles:
    """A folder of features.

    Attributes:
        num_images: rows of every layer.
        unreadable: rows whose image could not be read: NaN in every layer.
        shapes: of one image's features, by layer.
        dtype: float16 or float32.
        provenance: fingerprints of what decides the values: weights, images, transform.
    """

    folder: Path
    num_images: int
    unreadable: list[int]
    shapes: dict[str, list[int]]
    dtype: str
    provenance: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "FeatureFiles | None":
        """What lies in a folder; None when it holds no features, or not all of them."""
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

    Each rank writes its own rows; on several machines ``folder`` has to be on a file system that
    all of them see alike.

    Args:
        folder: replaced when it exists.
        embed: (B, 3, H, W) images to the features of each layer, (B, ...); in eval mode.
        loader: rank r gives positions r, r + R, r + 2R, ... of the R ranks.
        positions: (N,) of the images in ``loader.dataset``, over all ranks.
        dtype: float16 or float32.
        provenance: see `FeatureFiles`.

    Raises:
        ConfigError: the folder cannot be written, or the disk is too small.
        DataError: features are not finite, or too large for float16; no image can be read.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    partial = folder.with_name(f"{folder.name}.partial")
    shapes = _shapes(embed, loader)
    with _sole_writer(folder, partial) if rank == 0 else nullcontext():
        if rank == 0:
            with _said_as_config_error(folder):
                _reserve(partial, len(positions), shapes, dtype)
        distributed.barrier()
        arrays = {layer: np.load(_path(partial, layer), mmap_mode="r+") for layer in shapes}
        row = rank
        # TF32 is less than float32
        with torch.backends.cudnn.flags(allow_tf32=False):
            for batch in loader:
                rows = slice(row, row + world_size * len(batch.index), world_size)
                for layer, values in embed(batch.crops[0]).items():
                    names = map(loader.dataset.describe, batch.index.tolist())
                    arrays[layer][rows] = _finite(values, dtype, layer, names)
                row = rows.stop
        unreadable = _unreadable_rows(loader, positions)
        if len(unreadable) == len(positions):
            raise DataError(f"{folder}: none of these {len(positions)} images can be read")
        distributed.barrier()
        if rank == 0:
            for array in arrays.values():
                array[unreadable] = np.nan
                array.flush()
            files = FeatureFiles(partial, len(positions), unreadable, shapes, dtype, provenance)
            with _said_as_config_error(folder):
                _write_index(partial / INDEX, loader.dataset, positions, unreadable)
                files.write_about()
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                (folder / LOCK).unlink()
        distributed.barrier()
    return FeatureFiles(folder, len(positions), unreadable, shapes, dtype, provenance)


@contextmanager
def _sole_writer(folder: Path, partial: Path) -> Iterator[None]:
    """Two jobs may not write the same features at once; a job that died does not count."""
    with _said_as_config_error(folder):
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
    """Of one image's features: a rank without images has to know them too."""
    (size,) = loader.transform.crop_sizes
    image = torch.zeros(1, 3, size, size, device=loader.device)
    return {layer: list(values.shape[1:]) for layer, values in embed(image).items()}


def _reserve(folder: Path, num_images: int, shapes: Mapping[str, list[int]], dtype: str) -> None:
    """Make the files in their full size: a full disk is found out now."""
    for left_over in folder.glob("[!.]*"):  # all but the lock
        left_over.unlink()
    for layer, shape in shapes.items():
        path = _path(folder, layer)
        array = open_memmap(path, "w+", dtype=np.dtype(dtype), shape=(num_images, *shape))
        array.flush()
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextmanager
def _said_as_config_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError([f"{folder}: cannot be written ({error.strerror})"]) from error


def _finite(values: Tensor, dtype: str, layer: str, names: Iterable[str]) -> np.ndarray:
    """The rows as they are written, of images of those names."""
    is_bad = ~values.flatten(1).isfinite().all(dim=1)
    if is_bad.any():
        first = next(name for name, bad in zip(names, is_bad.tolist(), strict=True) if bad)
        raise DataError(f"features of layer {layer} are not finite, first of image {first}")
    rows = values.to(getattr(torch, dtype)).cpu().numpy()
    if not np.isfinite(rows).all():
        raise DataError(f"features of layer {layer} are too large for float16: use float32")
    return rows


def _unreadable_rows(loader: Loader, positions: np.ndarray) -> list[int]:
    """Rows of the images that any rank has found unreadable."""
    found = torch.zeros(len(loader.dataset), dtype=torch.uint8, device=loader.device)
    found[loader.unreadable] = 1
    is_bad = distributed.all_reduce_max(found).bool().cpu().numpy()
    return np.flatnonzero(is_bad[positions]).tolist()


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
