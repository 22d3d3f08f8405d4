"""The platform's transforms and image sets for torch: `Dataset`, `DataLoader`, torchvision."""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ssl_platform.data import contract
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.decode import pixels_of, read_file
from ssl_platform.data.decoding.pixels import Notes, PixelOptions
from ssl_platform.data.loading.batch_reader import Transform
from ssl_platform.errors import DataError, kind_of

WANTED = (
    "a transform takes an image of Pillow, a path, an array (H, W, C) or (H, W) of uint8, or a "
    "tensor (C, H, W) of uint8"
)


class CropsTransform:
    """The crops of an image as normalised tensors: a transform for any torch data set.

    Random numbers follow torch's generator of the process, as those of torchvision do: a
    `DataLoader` gives each worker and each epoch others, and ``torch.manual_seed`` repeats them.

    Args:
        transform: of the platform, such as a `MultiCrop`.
        normalize: mean and standard deviation of the channels.
        pixels: how images of Pillow and files become 8 bits.
    """

    def __init__(
        self, transform: Transform, normalize: Normalize, pixels: PixelOptions | None = None
    ):
        self.transform, self.normalize = transform, normalize
        self.pixels = pixels or PixelOptions()
        self._scale, self._shift = map(torch.from_numpy, normalize.scale_and_shift)

    @property
    def num_crops(self) -> int:
        """Crops of each image."""
        return self.transform.num_crops

    @property
    def crop_sizes(self) -> list[int | tuple[int, int]]:
        """Side of each crop, in pixels, or height and width; equal sizes are adjacent."""
        return self.transform.crop_sizes

    def __call__(self, image: Any) -> list[Tensor]:
        """One (C, height, width) float32 tensor for each crop.

        Args:
            image: of Pillow, an array (H, W, C) or (H, W) uint8, a tensor (C, H, W) uint8, or the
                path of a file.

        Raises:
            TypeError: it is something else.
            UnreadableImage: the file cannot be read.
        """
        seed = int(torch.randint(2**63 - 1, ()))
        rng = np.random.Generator(np.random.PCG64(seed))
        crops = contract.make_crops(self.transform, _pixels(image, self.pixels), rng)
        return [self._normalized(crop) for crop in crops]

    def _normalized(self, crop: np.ndarray) -> Tensor:
        levels = torch.from_numpy(np.ascontiguousarray(crop)).float()
        return torch.addcmul(self._shift, levels, self._scale).permute(2, 0, 1).contiguous()

    def __repr__(self) -> str:
        name = type(self.transform).__name__
        return f"{type(self).__name__}({name} of {self.crop_sizes} pixels, {self.normalize})"


class EvalTransform(CropsTransform):
    """The one crop of an evaluation as a normalised tensor, not in a list."""

    def __call__(self, image: Any) -> Tensor:  # type: ignore[override]
        """A (C, height, width) float32 tensor; see `CropsTransform` for images and errors."""
        crops = contract.make_crops(
            self.transform, _pixels(image, self.pixels), np.random.default_rng(0)
        )
        return self._normalized(crops[0])


def _pixels(image: Any, options: PixelOptions) -> np.ndarray:
    """(H, W, C) uint8."""
    if isinstance(image, Image.Image):
        return pixels_of(image, options, Notes())
    if isinstance(image, str | os.PathLike):
        return read_file(os.fsencode(image), options)
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.dim() == 3:
        image = image.permute(1, 2, 0).numpy(force=True)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    raise TypeError(f"{kind_of(image)}: {WANTED}")


class TorchImages(Dataset[tuple[Any, int, int]]):
    """An image set of the platform as a torch data set of (crops, label, index).

    Args:
        dataset: images.
        transform: of an array (H, W, C) uint8.
    """

    def __init__(self, dataset: ImageDataset, transform: CropsTransform):
        contract.prepare(dataset)
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        """What the transform gives, the class (-1 where there is none), and ``index``.

        Raises:
            DataError: the image cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            image = contract.read_image(self.dataset, index)
        except UnreadableImage as error:
            raise DataError(f"unreadable image {error.name}: {error.reason}") from error
        labels = self.dataset.labels
        label = -1 if labels is None else int(labels[index])
        return self.transform(image), label, index


class WithIndex(Dataset[tuple[Any, ...]]):
    """Any torch data set with the position of an item behind what the item holds."""

    def __init__(self, dataset: Dataset[Any]):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """The item and its position."""
        return (*self.dataset[index], index)
