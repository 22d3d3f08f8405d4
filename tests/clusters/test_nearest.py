"""The same image always has the same nearest prototype."""

import torch

from ssl_platform.clusters.nearest import CLOSE_CALL, nearest_prototypes
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
