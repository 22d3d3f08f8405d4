"""Features of images of which some, or all, are not finite."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ssl_platform.data.batch import Batch
from ssl_platform.errors import DivergedError
from ssl_platform.evaluation.features import extract


class SomeLoader:
    device, unreadable = torch.device("cpu"), (4,)

    def __init__(self, images: Tensor):
        self.images = images

    def readable(self, index: Tensor) -> Tensor:
        return torch.tensor([position not in self.unreadable for position in index.tolist()])

    def __iter__(self) -> Iterator[Batch]:
        for index in torch.arange(len(self.images)).split(2):
            yield Batch([self.images[index]], label=index, index=index)


def some_images() -> Tensor:
    return torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_of_which_none_is_finite_are_refused(bad):
    def embed(images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    images = some_images()
    images[1:, 0] = bad
    rows = extract(embed, SomeLoader(images), 6).rows
    assert rows.isfinite().all(dim=1).tolist() == [True] + [False] * 5
    images[0, 1] = bad
    with pytest.raises(DivergedError) as error:
        extract(embed, SomeLoader(images), 6)
    assert str(error.value) == (
        "the features of all 6 images are NaN or infinite: so are the weights, or the running "
        "statistics of batch norms; take an earlier checkpoint, or train with a lower optimizer.lr"
    )
