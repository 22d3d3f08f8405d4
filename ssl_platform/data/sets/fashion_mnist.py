"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), plain or moved on a canvas."""

import gzip
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from ssl_platform.data.crops.ranges import rising
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.registry import DATASETS

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
DOWNLOAD_FOLDER = Path("data/downloads/fashion-mnist")  # below the working directory
PREFIXES = {"train": "train", "test": "t10k"}
FILES = ("{}-images-idx3-ubyte", "{}-labels-idx1-ubyte")


@dataclass(frozen=True)
class Canvas:
    """Each image at a random size and place on a larger noisy canvas, the same in every epoch."""

    size: Annotated[int, Field(ge=1)]  # side of the canvas, pixels
    # range of the image's side, as a part of the canvas's
    scale: Annotated[tuple[float, float], rising(0, 1)]
    # standard deviation of the Gaussian noise everywhere; 1 is full brightness
    noise: Annotated[float, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]


@DATASETS.register()
class FashionMNIST(ImageDataset):
    """60 000 training and 10 000 test images of clothes, ten balanced classes, grey 28 x 28.

    Args:
        path: folder of the idx files, as they are or gzipped; null looks where Debian's package
            dataset-fashion-mnist and ``make data`` put them.
        split: which of the two sets.
        num_samples: only the first so many of them, of all classes; null for all.
        canvas: moves the images, which makes raw pixels a weak baseline; null leaves them.
        download: fetch the files when they are nowhere.

    Raises:
        ValueError: no files, or damaged files.
    """

    def __init__(
        self,
        *,
        path: str | None,
        split: Literal["train", "test"],
        num_samples: int | None,
        canvas: Canvas | None,
        download: bool,
    ):
        self.split, self.canvas = split, canvas
        self._image_file, label_file = _find(path, split, download)
        labels = _read_idx(label_file).astype(np.int64)
        if num_samples is not None and not 1 <= num_samples <= len(labels):
            raise ValueError(f"num_samples={num_samples}: from 1 to {len(labels)}, or null for all")
        self.labels, self._num_labels = labels[:num_samples], len(labels)
        self.num_samples = len(self.labels)
        self._images: np.ndarray | None = None  # (N, 28, 28) uint8

    def __len__(self) -> int:
        return self.num_samples

    def read(self, index: int) -> np.ndarray:
        self.prepare()
        assert self._images is not None
        image = self._images[index]
        if self.canvas is not None:
            key = (self.canvas.seed, list(PREFIXES).index(self.split), index)
            image = place_on_canvas(image, self.canvas, np.random.default_rng(key))
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)

    def describe(self, index: int) -> str:
        return f"FashionMNIST/{self.split}[{index}]"

    def prepare(self) -> None:
        if self._images is not None:
            return
        images = _read_idx(self._image_file)
        if len(images) != self._num_labels:
            raise ValueError(
                f"path={self._image_file}: {len(images)} images for {self._num_labels} labels"
            )
        self._images = images


def place_on_canvas(image: np.ndarray, canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Put a square grey image somewhere on a noisy canvas; (size, size) uint8."""
    side = max(1, round(rng.uniform(*canvas.scale) * canvas.size))
    top, left = rng.integers(0, canvas.size - side + 1, size=2)
    level = 255 * canvas.noise * rng.standard_normal((canvas.size,) * 2, dtype=np.float32)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    level[top : top + side, left : left + side] += small
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)


def download_from_torchvision(folder: Path) -> None:
    """Fetch the four files into ``folder`` with torchvision's downloader, which checks their md5.

    Raises:
        OSError, RuntimeError: no connection, no room, or a file that is not what it should be.
    """
    from torchvision.datasets import FashionMNIST as Downloader

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        Downloader(temporary, download=True)
        folder.mkdir(exist_ok=True)
        # Moved one by one when complete: several processes may do this at the same time.
        for file in (Path(temporary) / "FashionMNIST" / "raw").glob("*.gz"):
            os.replace(file, folder / file.name)


def _find(path: str | None, split: str, download: bool) -> list[Path]:
    """The files of images and labels, from the first place that has both."""
    places = [DEBIAN_FOLDER, DOWNLOAD_FOLDER]
    if path is not None:
        places = [Path(path), Path(path) / "FashionMNIST" / "raw", *places]
    files = _find_in(places, split)
    if files is None and download:
        try:
            download_from_torchvision(DOWNLOAD_FOLDER)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"download=true: cannot fetch Fashion-MNIST: {reason}") from error
        files = _find_in(places, split)
    if files is None:
        raise ValueError(
            f"path={'null' if path is None else path}: no Fashion-MNIST files in "
            f"{', '.join(map(str, places))} (working directory: {Path.cwd()}); "
            "fetch them with `make data`, or set download: true"
        )
    return files


def _find_in(places: list[Path], split: str) -> list[Path] | None:
    for place in places:
        for suffix in ("", ".gz"):
            files = [place / (name.format(PREFIXES[split]) + suffix) for name in FILES]
            if all(file.is_file() for file in files):
                return files
    return None


def _read_idx(file: Path) -> np.ndarray:
    """An array of bytes in the idx format of MNIST: magic, dimensions, sizes, then the values."""
    try:
        data = file.read_bytes()
        if file.suffix == ".gz":
            data = gzip.decompress(data)
        zeros, kind, num_dims = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{num_dims}I", data, 4)
        if (zeros, kind) != (0, 8):
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * num_dims).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"path={file}: damaged: {error}") from error
