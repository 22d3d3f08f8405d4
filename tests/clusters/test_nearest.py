"""The same image always has the same nearest prototype."""

import math

import numpy as np
import pytest
import torch

from ssl_platform.clusters.nearest import CLOSE_CALL, find_nearest, nearest_prototypes
from ssl_platform.data.batch import Batch
from ssl_platform.models.heads import PrototypeHead


def head_of(prototypes: torch.Tensor) -> PrototypeHead:
    """A head of these (K, 2) prototypes, whose embeddings are its unit features."""
    head = PrototypeHead(
        2, hidden_dim=0, out_dim=2, num_prototypes=[len(prototypes)], batch_norm=False
    )
    head.projection = torch.nn.Identity()
    head.prototypes[0].weight.data = prototypes
    return head


def test_a_close_call_is_decided_by_the_image_alone():
    """A trunk that rounds otherwise in a batch, and two prototypes that nearly tie."""
    angle = torch.tensor([0.7, -0.7])
    head = head_of(torch.stack([angle.cos(), angle.sin()], dim=1))

    def trunk(images: torch.Tensor) -> torch.Tensor:
        tilt = 1e-5 if len(images) > 1 else -1e-5
        return images + torch.tensor([0.0, tilt])

    close, clear = torch.tensor([1.0, 0.0]), torch.tensor([0.9, 0.5])
    (alone,) = nearest_prototypes(trunk, head, close[None])
    together = nearest_prototypes(trunk, head, torch.stack([clear, close, clear]))
    assert alone[2] < CLOSE_CALL
    assert torch.equal(together[1], alone)
    assert together[0, 0] != alone[0]


def test_equal_prototypes_give_the_lowest_id():
    head = head_of(torch.tensor([[0.0, 1], [1, 0], [1, 0], [1, 0]]))
    (answer,) = nearest_prototypes(torch.nn.Identity(), head, torch.tensor([[2.0, 0.1]]))
    assert answer[0] == 1 and answer[2] == 0


class SomeLoader:
    """Features in place of images; number 4 cannot be read."""

    device = torch.device("cpu")

    def __init__(self, features: torch.Tensor):
        self.features = features

    def readable(self, index: torch.Tensor) -> torch.Tensor:
        return index != 4

    def __iter__(self):
        for index in torch.arange(len(self.features)).split(2):
            yield Batch([self.features[index]], label=index, index=index)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_image_whose_embedding_is_not_finite_has_no_cluster(bad, caplog):
    torch.manual_seed(0)
    head = PrototypeHead(48, hidden_dim=0, out_dim=8, num_prototypes=[5, 3], batch_norm=False)
    features, trunk = torch.randn(6, 48), torch.nn.Identity()
    expected = find_nearest(trunk, head.eval(), SomeLoader(features), 6)
    features[1, 0] = bad
    clusters = find_nearest(trunk, head, SomeLoader(features), 6)
    assert clusters.ids[[1, 4]].tolist() == [[-1, -1], [-1, -1]]
    assert np.isnan(clusters.scores[[1, 4]]).all() and np.isnan(clusters.margins[[1, 4]]).all()
    for name in ("ids", "scores", "margins"):
        after, before = getattr(clusters, name)[[0, 2, 3, 5]], getattr(expected, name)[[0, 2, 3, 5]]
        np.testing.assert_allclose(after, before, rtol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 6 images have no cluster: their embeddings are NaN or infinite"
    ]
