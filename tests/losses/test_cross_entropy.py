import math

import pytest
import torch
import torch.nn.functional as F
from tiny_losses import some_data
from torch import nn

from ssl_platform.data.batch import Batch
from ssl_platform.losses.cross_entropy import CrossEntropyLoss
from ssl_platform.models import SSLModel

DATA = some_data(num_crops=1, num_classes=3)


def a_model(*heads: str) -> SSLModel:
    torch.manual_seed(0)
    return SSLModel(nn.Flatten(), {name: nn.Linear(12, 3) for name in heads})


def a_batch(labels: list[int]) -> Batch:
    images = torch.randn(len(labels), 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch([images], torch.tensor(labels), torch.arange(len(labels)))


def loss_of(model: SSLModel, batch: Batch) -> torch.Tensor:
    loss = CrossEntropyLoss(model, DATA)
    return loss(model, model(batch.crops), batch)["loss"]


def test_one_head_is_torchs_cross_entropy_and_unlabelled_images_are_left_out():
    model, batch = a_model("linear"), a_batch([2, 0, -1, 1])
    scores = model(batch.crops)["linear"]
    expected = F.cross_entropy(scores[[0, 1, 3]], torch.tensor([2, 0, 1]))
    assert torch.allclose(loss_of(model, batch), expected)


def test_a_batch_without_labels_is_no_nan_and_has_no_gradient():
    model = a_model("linear")
    loss = loss_of(model, a_batch([-1, -1]))
    loss.backward()
    assert loss.item() == 0
    assert not model.heads["linear"].weight.grad.any()


def test_heads_learn_as_if_each_were_alone():
    both, batch = a_model("first", "second"), a_batch([0, 1, 2, 0])
    loss_of(both, batch).backward()
    for name in ("first", "second"):
        alone = SSLModel(nn.Flatten(), {name: both.heads[name]})
        together = both.heads[name].weight.grad.clone()
        both.heads[name].weight.grad = None
        loss_of(alone, batch).backward()
        assert torch.equal(both.heads[name].weight.grad, together)


def test_the_loss_of_a_uniform_prediction():
    model = a_model("first", "second")
    for head in model.heads.values():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    assert CrossEntropyLoss(model, DATA).uniform_loss == pytest.approx(2 * math.log(3))
    assert loss_of(model, a_batch([0, 1])).item() == pytest.approx(2 * math.log(3))


@pytest.mark.parametrize("num_classes", [None, 1])
def test_images_without_two_classes(num_classes):
    with pytest.raises(ValueError, match=r"^the training images have no labels of two classes;"):
        CrossEntropyLoss(a_model("linear"), some_data(num_classes=num_classes))
