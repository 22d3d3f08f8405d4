"""Some images of the training as the model sees them: features, embeddings and thumbnails."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.console import escaped
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.shown import as_rgb
from ssl_platform.evaluation.features import extract
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.network import Network

THUMBNAIL_SIDE = 64  # pixels, of the longer side


@dataclass(frozen=True, eq=False)
class Sample:
    """N images that could be read and have finite features.

    Attributes:
        names: where each comes from, in one line.
        labels: (N,) int64 classes, -1 for none.
        classes: the name of each class among the labels.
        features: (N, D) float32, of the trunk.
        embeddings: (N, E) float32 of unit length, of the first head with prototypes.
        prototypes: (K, E) float32 of unit length, its first set. None, as the embeddings, where
            no head has any.
        thumbnails: (N, h, w, 3) uint8, of what the trunk sees in an evaluation.
        is_small: whether they are the whole image that it sees, pixel by pixel.
    """

    names: list[str]
    labels: np.ndarray
    classes: dict[int, str]
    features: Tensor
    embeddings: Tensor | None
    prototypes: Tensor | None
    thumbnails: np.ndarray
    is_small: bool

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_labelled(self) -> bool:
        """Whether two classes are among the images."""
        return len(self.classes) > 1

    def class_name(self, index: int) -> str:
        """Of image ``index``; empty where it has none."""
        return self.classes.get(int(self.labels[index]), "")


class _Seen(nn.Module):
    """What is kept of a batch, in one row for each image."""

    def __init__(self, trunk: nn.Module, head: PrototypeHead | None, loader: Loader):
        super().__init__()
        self.trunk, self.head = trunk, head
        self._to_pixels = loader.to_pixels
        self.widths: list[int] = []
        self.shape: tuple[int, int] = (1, 1)  # of a thumbnail
        self.is_small = True

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, features + embedding + pixels of the thumbnail)."""
        features = self.trunk(images)
        parts = [features.float()]
        if self.head is not None:
            parts.append(self.head.embed(features).float())
        pixels = torch.from_numpy(as_rgb(self._to_pixels(self._shrunk(images))))
        self.shape = (pixels.shape[1], pixels.shape[2])
        parts.append(pixels.flatten(1).to(parts[0]))
        self.widths = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    def _shrunk(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        scale = THUMBNAIL_SIDE / max(height, width)
        if scale >= 1:
            return images
        self.is_small = False
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return F.adaptive_avg_pool2d(images, size)


def drawn_positions(dataset: ImageDataset, num_images: int, seed: int) -> np.ndarray:
    """Positions of some images, drawn once for all, in ascending order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(dataset), min(num_images, len(dataset)), replace=False))


def look_at(
    network: Network,
    dataset: ImageDataset,
    positions: np.ndarray,
    make_loader: Callable[[ImageDataset, np.ndarray], Loader],
) -> Sample | None:
    """Features, embeddings and thumbnails of some images, in eval mode. Collective.

    Returns:
        None on ranks other than the first.

    Raises:
        DivergedError: not one image has finite features.
    """
    heads = [head for head in network.heads.values() if isinstance(head, PrototypeHead)]
    head = heads[0] if heads else None
    loader = make_loader(dataset, positions)
    seen = _Seen(network.trunk, head, loader)
    rows, _ = extract(seen, loader, len(positions))
    if distributed.rank() != 0:
        return None
    kept = rows.isfinite().all(dim=1)
    features, *embeddings, pixels = rows[kept].split(seen.widths, dim=1)
    positions = positions[kept.numpy()]
    labels = np.full(len(positions), -1) if dataset.labels is None else dataset.labels[positions]
    return Sample(
        names=[escaped(dataset.describe(position)) for position in positions.tolist()],
        labels=labels,
        classes={k: _class_name(dataset, k) for k in np.unique(labels[labels >= 0]).tolist()},
        features=features.contiguous(),
        embeddings=embeddings[0].contiguous() if embeddings else None,
        prototypes=None if head is None else _directions(head),
        thumbnails=pixels.byte().unflatten(1, (*seen.shape, 3)).numpy(),
        is_small=seen.is_small,
    )


@torch.no_grad()
def _directions(head: PrototypeHead) -> Tensor:
    weight: Tensor = head.prototypes[0].weight  # type: ignore[assignment]
    return F.normalize(weight.detach().float(), dim=1).cpu()


def _class_name(dataset: ImageDataset, label: int) -> str:
    return f"class {label}" if dataset.classes is None else escaped(str(dataset.classes[label]))
