"""Features of images of which some, or all, are not finite."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_platform.clusters.nearest import find_nearest
from ssl_platform.data.batch import Batch
from ssl_platform.errors import DivergedError
from ssl_platform.evaluation.features import extract
from ssl_platform.models.heads import PrototypeHead


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_image_whose_embedding_is_not_finite_has_no_cluster(bad, caplog):
    torch.manual_seed(0)
    head = PrototypeHead(48, hidden_dim=0, out_dim=8, num_prototypes=[5, 3], batch_norm=False)
    head.normalize_prototypes()
    images = some_images()
    expected = find_nearest(nn.Flatten(), head.eval(), SomeLoader(images), 6)
    images[1, 0, 0, 0] = bad
    ids, scores, margins = find_nearest(nn.Flatten(), head, SomeLoader(images), 6)
    assert ids[1].tolist() == ids[4].tolist() == [-1, -1]
    assert np.isnan(scores[[1, 4]]).all() and np.isnan(margins[[1, 4]]).all()
    for ours, before in zip((ids, scores, margins), expected, strict=True):
        np.testing.assert_allclose(ours[[0, 2, 3, 5]], before[[0, 2, 3, 5]], rtol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 6 images have no cluster: their embeddings are NaN or infinite"
    ]
