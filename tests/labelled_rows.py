"""Labelled images in memory and the loader of some of them, for tests of what looks at features."""

from collections.abc import Collection, Iterable, Iterator
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.data.batch import Batch
from ssl_platform.data.loading.sampler import SequentialSampler


class DataSet(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.images)


def a_data_set(
    labels: Iterable[int] | None, classes: list[str] | None = None, kinds: list[int] | None = None
) -> DataSet:
    """Images that are bright in the channel of their kind, which is their label if not told."""
    if labels is None:
        return DataSet(labels=None, classes=None, images=torch.zeros(8, 3, 4, 4))
    labels = np.array(labels)
    kinds = labels if kinds is None else np.array(kinds)
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(len(labels), 3, 4, 4, generator=generator)
    for image, kind in zip(images, kinds, strict=True):
        image[kind] += 1
    return DataSet(labels=labels, images=images, classes=classes, num_classes=labels.max() + 1)


class Rows:
    """A loader of some rows of a tensor: this rank's share, in batches."""

    device = torch.device("cpu")

    def __init__(
        self, values: Tensor, positions: Iterable[int], batch_size: int, bad: Collection[int] = ()
    ):
        self.values, self.batch_size, self.bad = values, batch_size, bad
        sampler = SequentialSampler(list(positions), distributed.rank(), distributed.world_size())
        self.mine = [index for _, index in sampler]

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.mine), self.batch_size):
            index = torch.tensor(self.mine[start : start + self.batch_size])
            yield Batch([self.values[index]], label=index, index=index)

    def readable(self, index: Tensor) -> Tensor:
        return torch.tensor([position not in self.bad for position in index.tolist()])
