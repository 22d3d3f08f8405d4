"""The queue of earlier embeddings that take part in SwAV's assignment."""

from types import SimpleNamespace

import pytest
import torch
from tiny_losses import (
    BATCH,
    DIM,
    NUM_PROTOTYPES,
    a_loss,
    a_model,
    loss_of,
    random_crops,
    recorded_assignments,
    some_data,
    weight_of,
)
from torch import Tensor

from ssl_platform.losses.swav import SwAVLoss
from ssl_platform.models import SSLModel


def balanced(scores: Tensor, *, epsilon: float, num_iters: int) -> Tensor:
    codes = torch.exp(scores / epsilon)
    for _ in range(num_iters):
        codes = codes / codes.sum(dim=0, keepdim=True)
        codes = codes / codes.sum(dim=1, keepdim=True)
    return codes


class Textbook:
    """SwAV with a queue, a step at a time, one formula per line."""

    def __init__(self, queue_length: int, assign_crops: list[int], start_epoch: int):
        self.assign_crops, self.start_epoch = assign_crops, start_epoch
        self.queues = [torch.zeros(queue_length, DIM, dtype=torch.float64) for _ in assign_crops]
        self.is_full = False

    def on_epoch_start(self, epoch: int) -> None:
        self.is_filled_now = epoch >= self.start_epoch
        self.is_full = False

    def step(self, crops: list[Tensor], weight: Tensor) -> Tensor:
        weight = weight / weight.norm(dim=1, keepdim=True)
        embeddings = [crop / crop.norm(dim=1, keepdim=True) for crop in crops]
        total = torch.zeros((), dtype=torch.float64)
        for slot, target in enumerate(self.assign_crops):
            scores = embeddings[target] @ weight.T
            if self.is_filled_now:
                queue = self.queues[slot]
                self.is_full = self.is_full or bool((queue[-1] != 0).any())
                if self.is_full:
                    scores = torch.cat([queue @ weight.T, scores])
                batch = len(embeddings[target])
                self.queues[slot] = torch.cat([embeddings[target], queue[: len(queue) - batch]])
            codes = balanced(scores, epsilon=0.05, num_iters=3)[-len(embeddings[target]) :]
            for crop, embedding in enumerate(embeddings):
                if crop != target:
                    predictions = torch.exp(embedding @ weight.T / 0.1)
                    predictions = predictions / predictions.sum(dim=1, keepdim=True)
                    cross_entropy = -(codes * predictions.log()).sum(dim=1).mean()
                    total += cross_entropy / (len(crops) - 1) / len(self.assign_crops)
        return total


@pytest.mark.parametrize("assign_crops", [[0, 1], [2, 0], [1]])
@pytest.mark.parametrize(
    ("queue_length", "start_epoch"), [(BATCH, 0), (3 * BATCH, 0), (2 * BATCH, 1), (BATCH, 2)]
)
def test_steps_with_a_queue_equal_the_textbook(queue_length, start_epoch, assign_crops):
    model = a_model()
    loss = a_loss(
        model,
        assign_crops=assign_crops,
        queue_length=queue_length,
        queue_start_epoch=start_epoch,
    )
    textbook = Textbook(queue_length, assign_crops, start_epoch)
    for epoch in range(3):
        loss.on_epoch_start(SimpleNamespace(epoch=epoch))
        textbook.on_epoch_start(epoch)
        for step in range(4):
            seed = 10 * epoch + step
            crops = random_crops(seed)
            (weight,) = random_crops(1000 + seed, num_crops=1, batch=NUM_PROTOTYPES)
            weight_of(model).data = weight.clone()
            value = loss_of(loss, model, crops)
            torch.testing.assert_close(value.detach(), textbook.step(crops, weight))
            torch.testing.assert_close(loss.queue, torch.stack(textbook.queues))


def samples_of_steps(loss: SwAVLoss, model: SSLModel, seeds: range) -> list[int]:
    """Samples of each assignment, two a step."""
    with recorded_assignments() as assignments:
        for seed in seeds:
            loss_of(loss, model, random_crops(seed))
    return [len(scores) for scores, _ in assignments]


@pytest.mark.parametrize("num_batches", [1, 2, 3])
def test_the_queue_takes_part_once_it_is_full_and_from_the_first_step_of_the_next_epoch(
    num_batches,
):
    model = a_model()
    loss = a_loss(model, queue_length=num_batches * BATCH)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    together = (1 + num_batches) * BATCH
    sizes = samples_of_steps(loss, model, range(num_batches + 1))
    assert sizes == [BATCH] * 2 * num_batches + [together] * 2
    loss.on_epoch_start(SimpleNamespace(epoch=1))
    assert samples_of_steps(loss, model, range(1)) == [together] * 2


@pytest.mark.parametrize(("queue_length", "start_epoch"), [(BATCH - 1, 0), (2 * BATCH, 1)])
def test_a_queue_is_not_used_before_its_epoch_nor_if_shorter_than_the_batch(
    queue_length, start_epoch
):
    model = a_model()
    loss = a_loss(model, queue_length=queue_length, queue_start_epoch=start_epoch)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    assert set(samples_of_steps(loss, model, range(4))) == {BATCH}
    assert not loss.queue.any()


@pytest.mark.parametrize(
    ("queue_length", "world_size", "local_length"),
    [
        *((0, 1, 0), (3, 1, 0), (4, 1, 4), (7, 1, 4), (12, 1, 12), (15, 1, 12)),
        *((7, 2, 0), (8, 2, 4), (23, 2, 8), (50, 3, 16)),
    ],
)
def test_the_queue_is_shortened_to_a_multiple_of_the_total_batch(
    queue_length, world_size, local_length
):
    data = some_data(world_size=world_size)
    loss = a_loss(a_model(), data=data, queue_length=queue_length)
    assert loss.queue.shape == (2, local_length, DIM)


def test_the_queue_belongs_to_its_rank():
    loss = a_loss(a_model(), queue_length=BATCH)
    assert "queue" not in loss.state_dict()
    assert dict(loss.named_buffers())["queue"] is loss.queue
