import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.engine.loop import train_step
from ssl_platform.losses import swav
from ssl_platform.losses.swav import SwAVLoss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.ops.temperature import MIN_TEMPERATURE
from ssl_platform.optim.larc import LARC
from ssl_platform.optim.torch_optimizers import SGD

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "swapped_loss_no_queue.json").read_text()
)
CASES = VECTORS["cases"]
BATCH, DIM, NUM_PROTOTYPES = 4, 3, 5


def a_model(dim: int = DIM, num_prototypes: int = NUM_PROTOTYPES) -> SSLModel:
    """Crops are the raw embeddings themselves: (B, dim) rows that the head normalises."""
    torch.manual_seed(0)
    head = PrototypeHead(
        dim, hidden_dim=0, out_dim=dim, num_prototypes=[num_prototypes], batch_norm=False
    )
    head.projection = nn.Identity()
    return SSLModel(nn.Identity(), {"prototypes": head}).double()


def a_loss(model: SSLModel, *, data: DataInfo | None = None, **options) -> SwAVLoss:
    defaults = {
        "head": "prototypes",
        "temperature": 0.1,
        "epsilon": 0.05,
        "sinkhorn_iters": 3,
        "assign_crops": [0, 1],
        "queue_length": 0,
        "queue_start_epoch": 0,
        "freeze_prototypes_steps": 0,
        "freeze_prototypes_epochs": 0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few samples; it has a test of its own
        return SwAVLoss(model, data or some_data(), **(defaults | options)).double()


def some_data(**changes) -> DataInfo:
    values = {
        "num_samples": 100,
        "num_crops": 4,
        "batch_size": BATCH,
        "world_size": 1,
        "steps_per_epoch": 25,
        "seed": 0,
    }
    return DataInfo(**(values | changes))


def a_batch(crops: list[Tensor]) -> Batch:
    return Batch(crops, label=torch.zeros(len(crops[0])), index=torch.arange(len(crops[0])))


def random_crops(seed: int, num_crops: int = 4, batch: int = BATCH, dim: int = DIM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(num_crops, batch, dim, dtype=torch.float64, generator=generator))


def loss_of(loss: SwAVLoss, model: SSLModel, crops: list[Tensor]) -> Tensor:
    return loss(model, model(crops), a_batch(crops))["loss"]


def weight_of(model: SSLModel) -> nn.Parameter:
    return model.heads["prototypes"].prototypes[0].weight


@contextmanager
def recorded_assignments() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The scores and the codes of every assignment that is made inside."""
    assignments = []

    def recording(scores: Tensor, **options) -> Tensor:
        codes = original(scores, **options)
        assignments.append((scores, codes))
        return codes

    original = swav.sinkhorn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swav, "sinkhorn", recording)
        yield assignments


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-eps{case['epsilon']}")
def test_loss_codes_and_gradients_equal_those_of_the_reference(case):
    expected = {
        name: torch.tensor(value, dtype=torch.float64) for name, value in case["expected"].items()
    }
    z_raw = torch.tensor(case["z_raw"], dtype=torch.float64, requires_grad=True)
    num_prototypes, dim = len(case["prototypes_raw"]), z_raw.shape[1]
    model = a_model(dim, num_prototypes)
    weight_of(model).data = torch.tensor(case["prototypes_raw"], dtype=torch.float64)
    num_crops = sum(case["crops"])
    loss = a_loss(
        model,
        data=some_data(num_crops=num_crops, batch_size=case["batch"]),
        temperature=case["temperature"],
        epsilon=case["epsilon"],
        assign_crops=case["crops_for_assign"],
    )
    with recorded_assignments() as assignments:
        value = loss_of(loss, model, list(z_raw.chunk(num_crops)))
    value.backward()
    codes = torch.stack([codes for _, codes in assignments])
    close = {"rtol": 1e-6, "atol": 1e-12}
    torch.testing.assert_close(value.detach(), expected["loss"], **close)
    torch.testing.assert_close(codes, expected["q_per_assign_crop"], **close)
    torch.testing.assert_close(z_raw.grad, expected["grad_z_raw"], **close)
    torch.testing.assert_close(weight_of(model).grad, expected["grad_prototypes"], **close)
    torch.testing.assert_close(
        weight_of(model).detach(), expected["prototypes_after_normalisation"], **close
    )


@pytest.mark.parametrize("num_prototypes", [2, 5, 9])
def test_the_loss_is_ln_k_when_all_scores_are_equal(num_prototypes):
    model = a_model(num_prototypes=num_prototypes)
    weight_of(model).data = torch.ones(num_prototypes, DIM, dtype=torch.float64)
    loss = a_loss(model)
    assert loss_of(loss, model, random_crops(0)).item() == pytest.approx(math.log(num_prototypes))
    assert loss.uniform_loss == pytest.approx(math.log(num_prototypes))


def test_the_order_of_the_crops_that_do_not_assign_does_not_matter():
    model, crops = a_model(), random_crops(0, num_crops=6)
    loss = a_loss(model, data=some_data(num_crops=6))
    permuted = [*crops[:2], *crops[:1:-1]]
    torch.testing.assert_close(loss_of(loss, model, permuted), loss_of(loss, model, crops))


def test_the_order_of_the_images_does_not_matter():
    model, crops = a_model(), random_crops(0)
    loss = a_loss(model)
    flipped = [crop.flip(0) for crop in crops]
    torch.testing.assert_close(loss_of(loss, model, flipped), loss_of(loss, model, crops))


@pytest.mark.parametrize("assign_crops", [[0], [2], [0, 1], [3, 1], [0, 1, 2, 3]])
def test_the_loss_is_the_mean_cross_entropy_over_pairs_of_crops(assign_crops):
    model, crops = a_model(), random_crops(0)
    loss = a_loss(model, assign_crops=assign_crops)
    with recorded_assignments() as assignments:
        value = loss_of(loss, model, crops)
    unit_weight = weight_of(model).detach()
    pairs = [
        F.cross_entropy(F.normalize(crop, dim=1) @ unit_weight.T / 0.1, codes)
        for target, (_, codes) in zip(assign_crops, assignments, strict=True)
        for position, crop in enumerate(crops)
        if position != target
    ]
    torch.testing.assert_close(value.detach(), torch.stack(pairs).mean())


def test_no_gradient_flows_through_the_codes():
    model = a_model()
    crops = [crop.requires_grad_() for crop in random_crops(0, num_crops=2)]
    # the only target is crop 0: it would get a gradient through its codes alone
    loss = a_loss(model, data=some_data(num_crops=2), assign_crops=[0])
    loss_of(loss, model, crops).backward()
    assert crops[0].grad is None or not crops[0].grad.any()
    assert crops[1].grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_give_a_float32_loss(dtype):
    model = a_model().float()
    loss = a_loss(model, queue_length=2 * BATCH).float()
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    values = []
    for seed in range(3):
        crops = [crop.float() for crop in random_crops(seed)]
        embeddings, (scores,) = model(crops)["prototypes"]
        outputs = {"prototypes": (embeddings.to(dtype), [scores.to(dtype)])}
        values.append(loss(model, outputs, a_batch(crops))["loss"])
    assert {value.dtype for value in values} == {torch.float32}
    assert all(value.isfinite() for value in values)


# The queue


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
    ("queue_length", "start_epoch"), [(BATCH, 0), (3 * BATCH, 0), (2 * BATCH, 1)]
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


def run_steps(loss: SwAVLoss, model: SSLModel, seeds: range) -> list[tuple[Tensor, Tensor]]:
    with recorded_assignments() as assignments:
        for seed in seeds:
            loss_of(loss, model, random_crops(seed))
    return assignments


def unit_embeddings(seed: int, crop: int) -> Tensor:
    return F.normalize(random_crops(seed)[crop], dim=1)


def test_the_queue_is_empty_until_its_start_epoch():
    model = a_model()
    loss = a_loss(model, queue_length=2 * BATCH, queue_start_epoch=2)
    for epoch in range(2):
        loss.on_epoch_start(SimpleNamespace(epoch=epoch))
        assignments = run_steps(loss, model, range(4))
        assert {len(scores) for scores, _ in assignments} == {BATCH}
        assert not loss.queue.any()
    loss.on_epoch_start(SimpleNamespace(epoch=2))
    run_steps(loss, model, range(1))
    assert loss.queue[:, :BATCH].any(dim=2).all()


@pytest.mark.parametrize("num_batches", [1, 2, 3])
def test_the_queue_takes_part_in_the_assignment_once_it_is_full(num_batches):
    model = a_model()
    loss = a_loss(model, queue_length=num_batches * BATCH)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    assignments = run_steps(loss, model, range(num_batches + 2))
    sizes = [len(scores) // BATCH for scores, _ in assignments[::2]]
    assert sizes == [1] * num_batches + [1 + num_batches] * 2
    assert [len(scores) // BATCH for scores, _ in assignments[1::2]] == sizes


def test_a_full_queue_is_used_from_the_first_step_of_the_next_epoch():
    model = a_model()
    loss = a_loss(model, queue_length=2 * BATCH)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    run_steps(loss, model, range(3))
    loss.on_epoch_start(SimpleNamespace(epoch=1))
    assignments = run_steps(loss, model, range(3, 4))
    assert [len(scores) for scores, _ in assignments] == [3 * BATCH] * 2


def test_the_queue_holds_the_newest_batches_of_each_assigning_crop_newest_first():
    model = a_model()
    loss = a_loss(model, assign_crops=[1, 3], queue_length=2 * BATCH)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    run_steps(loss, model, range(5))
    expected = [
        torch.cat([unit_embeddings(seed=4, crop=crop), unit_embeddings(seed=3, crop=crop)])
        for crop in (1, 3)
    ]
    torch.testing.assert_close(loss.queue, torch.stack(expected))


def test_the_batch_that_is_assigned_is_not_in_the_queue_that_joins_it():
    model = a_model()
    loss = a_loss(model, queue_length=2 * BATCH)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    assignments = run_steps(loss, model, range(4))
    unit_weight = weight_of(model).detach()
    for crop, (scores, _) in enumerate(assignments[-2:]):
        seeds = (2, 1, 3)  # the queue, newest first, then the batch
        expected = torch.cat([unit_embeddings(seed, crop) for seed in seeds]) @ unit_weight.T
        torch.testing.assert_close(scores, expected)


def test_the_queue_is_scored_with_the_prototypes_of_the_moment():
    model = a_model()
    loss = a_loss(model, queue_length=BATCH)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    run_steps(loss, model, range(1))
    (weight,) = random_crops(99, num_crops=1, batch=NUM_PROTOTYPES)
    weight_of(model).data = weight.clone()
    (scores, _), _ = run_steps(loss, model, range(1, 2))
    expected = unit_embeddings(seed=0, crop=0) @ F.normalize(weight, dim=1).T
    torch.testing.assert_close(scores[:BATCH], expected)


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


def test_a_queue_shorter_than_the_batch_is_never_used():
    model = a_model()
    loss = a_loss(model, queue_length=BATCH - 1)
    loss.on_epoch_start(SimpleNamespace(epoch=0))
    assignments = run_steps(loss, model, range(3))
    assert {len(scores) for scores, _ in assignments} == {BATCH}


def test_the_queue_belongs_to_its_rank():
    loss = a_loss(a_model(), queue_length=BATCH)
    assert "queue" not in loss.state_dict()
    assert dict(loss.named_buffers())["queue"] is loss.queue


# Frozen prototypes


class _Run(SimpleNamespace):
    @property
    def position(self) -> int:
        return self.step


def a_run(model: SSLModel, loss: SwAVLoss, optimizer: torch.optim.Optimizer) -> SimpleNamespace:
    run = _Run(
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=lambda step: 0.1,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=torch.device("cpu"),
        autocast_dtype=None,
        train_sampler=SimpleNamespace(batch_size=BATCH),
        epoch=0,
        epoch_step=0,
        epoch_images=0,
        step=0,
    )
    run.fire = lambda event: getattr(loss, event)(run)
    return run


def trained_weights(run: SimpleNamespace, num_epochs: int, steps_per_epoch: int) -> list[Tensor]:
    """The unit prototypes before training and after each step."""
    weights = [F.normalize(weight_of(run.model).detach(), dim=1)]
    for run.epoch in range(num_epochs):
        run.fire("on_epoch_start")
        for _ in range(steps_per_epoch):
            train_step(run.model, a_batch(random_crops(run.step)), run)
            weights.append(F.normalize(weight_of(run.model).detach(), dim=1))
            has_moved = not torch.allclose(weights[-1], weights[0], rtol=0, atol=1e-12)
            assert (weight_of(run.model) in run.optimizer.state) == has_moved
    return weights


def larc(params) -> LARC:
    swav_options = {"trust_coefficient": 0.001, "eps": 1e-8, "clip": False}
    return LARC(params, lr=0.1, momentum=0.9, weight_decay=1e-6, **swav_options)


def sgd(params) -> SGD:
    return SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)


@pytest.mark.parametrize("optimizer", [larc, sgd, torch.optim.AdamW])
@pytest.mark.parametrize(
    ("steps", "epochs", "num_frozen"),
    [(0, 0, 0), (1, 0, 1), (4, 0, 4), (0, 1, 3), (0, 2, 6), (2, 1, 3), (5, 1, 5)],
)
def test_frozen_prototypes_do_not_move_and_then_they_do(steps, epochs, num_frozen, optimizer):
    model = a_model()
    model.trunk = nn.Linear(DIM, DIM).double()  # moves from the first step on
    loss = a_loss(model, freeze_prototypes_steps=steps, freeze_prototypes_epochs=epochs)
    run = a_run(model, loss, optimizer(model.parameters()))
    weights = trained_weights(run, num_epochs=3, steps_per_epoch=3)
    for weight in weights[: num_frozen + 1]:
        torch.testing.assert_close(weight, weights[0], rtol=0, atol=1e-12)
    for before, after in pairwise(weights[num_frozen:]):
        assert (before - after).abs().max() > 1e-8


# What the constructor refuses


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"temperature": 0}, {}, "temperature=0: must be positive, e.g. 0.1"),
        ({"temperature": -0.1}, {}, "temperature=-0.1: must be positive, e.g. 0.1"),
        (
            {"temperature": 1e-40},
            {},
            "temperature=1e-40: at least 1e-06, e.g. 0.1; below, the rounding of scores would "
            "decide",
        ),
        ({"epsilon": 0}, {}, "epsilon=0: must be positive, e.g. 0.05"),
        ({"sinkhorn_iters": 0}, {}, "sinkhorn_iters=0: at least 1, e.g. 3"),
        (
            {"assign_crops": [0]},
            {"num_crops": 1},
            "assign_crops=[0]: the method compares at least 2 crops, there is 1",
        ),
        *(
            (
                {"assign_crops": crops},
                {},
                f"assign_crops={crops}: different positions of crops, from 0 to 3 "
                "(the data has 4 crops)",
            )
            for crops in ([], [4], [-1], [0, 1, 9])
        ),
        *(
            (
                {"queue_length": length},
                {},
                f"queue_length={length}: the data set has 100 images; "
                "a queue holds at most each of them once",
            )
            for length in (-1, 101)
        ),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_expected(options, data, message):
    with pytest.raises(ValueError) as error:
        a_loss(a_model(), data=some_data(**data), **options)
    assert str(error.value) == message


def test_all_options_out_of_range_are_named_at_once():
    options = {"temperature": 0, "epsilon": 0, "sinkhorn_iters": 0}
    with pytest.raises(ValueError) as error:
        a_loss(a_model(), **options, assign_crops=[7], queue_length=-1)
    named = [line.split("=")[0] for line in str(error.value).splitlines()]
    assert named == [*options, "assign_crops", "queue_length"]


def test_a_crop_that_assigns_twice_is_refused():
    with pytest.raises(ValueError, match=r"^assign_crops="):
        a_loss(a_model(), assign_crops=[0, 0])


def several_sets() -> nn.Module:
    return PrototypeHead(DIM, hidden_dim=0, out_dim=DIM, num_prototypes=[5, 5], batch_norm=False)


@pytest.mark.parametrize(("head", "module"), [("other", nn.Identity()), ("none", None)])
def test_a_head_without_prototypes_is_refused(head, module):
    model = a_model()
    if module is not None:
        model.heads[head] = module
    with pytest.raises(ValueError) as error:
        a_loss(model, head=head)
    assert str(error.value) == (
        f"head={head}: has to be a PrototypeHead; the model's heads are {sorted(model.heads)}"
    )


def test_a_head_with_several_sets_of_prototypes_is_refused():
    model = a_model()
    model.heads["sets"] = several_sets()
    with pytest.raises(ValueError, match=r"^head=sets: SwAV needs one set of prototypes, it has 2"):
        a_loss(model, head="sets")


@pytest.mark.parametrize(
    ("num_prototypes", "queue_length", "world_size", "is_warned_of"),
    [(4, 0, 1, False), (5, 0, 1, True), (5, 4, 1, False), (9, 7, 1, True), (8, 0, 2, False)],
)
def test_more_prototypes_than_samples_are_warned_of(
    num_prototypes, queue_length, world_size, is_warned_of
):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SwAVLoss(
            a_model(num_prototypes=num_prototypes),
            some_data(world_size=world_size),
            head="prototypes",
            temperature=0.1,
            epsilon=0.05,
            sinkhorn_iters=3,
            assign_crops=[0, 1],
            queue_length=queue_length,
            queue_start_epoch=0,
            freeze_prototypes_steps=0,
            freeze_prototypes_epochs=0,
        )
    messages = [str(warning.message) for warning in caught]
    assert [message.startswith(f"{num_prototypes} prototypes for ") for message in messages] == (
        [True] if is_warned_of else []
    )


# Several ranks


def trained_on_this_rank(queue_length: int) -> list[dict[str, Tensor]]:
    """Loss, codes and prototype gradient of 6 steps in 2 epochs, on this rank's rows of a batch."""
    rank, world_size = distributed.rank(), distributed.world_size()
    model = a_model()
    data = some_data(batch_size=2 * BATCH // world_size, world_size=world_size)
    loss = a_loss(model, data=data, queue_length=queue_length)
    steps = []
    for epoch in range(2):
        loss.on_epoch_start(SimpleNamespace(epoch=epoch))
        for step in range(3):
            seed = 3 * epoch + step
            whole = random_crops(seed, batch=2 * BATCH)
            (weight,) = random_crops(1000 + seed, num_crops=1, batch=NUM_PROTOTYPES)
            weight_of(model).data, weight_of(model).grad = weight, None
            crops = [crop.chunk(world_size)[rank] for crop in whole]
            with recorded_assignments() as assignments:
                value = loss_of(loss, model, crops)
            value.backward()
            codes = torch.stack([codes[-len(crops[0]) :] for _, codes in assignments])
            gradient = weight_of(model).grad
            steps.append({"loss": value.detach(), "codes": codes, "gradient": gradient})
    return steps


@pytest.mark.parametrize("queue_length", [0, 2 * BATCH, 4 * BATCH])
def test_two_ranks_train_as_one_process_with_the_whole_batch(queue_length):
    on_ranks = run_on_ranks(trained_on_this_rank, 2, queue_length)
    whole = trained_on_this_rank(queue_length)
    for first, second, expected in zip(*on_ranks, whole, strict=True):
        close = {"rtol": 1e-6, "atol": 1e-12}
        torch.testing.assert_close((first["loss"] + second["loss"]) / 2, expected["loss"], **close)
        torch.testing.assert_close(
            (first["gradient"] + second["gradient"]) / 2, expected["gradient"], **close
        )
        torch.testing.assert_close(
            torch.cat([first["codes"], second["codes"]], dim=1), expected["codes"], **close
        )


@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 1e300])
@pytest.mark.parametrize("epsilon", [1e-320, 1e300])
def test_the_loss_and_its_gradient_are_finite_at_any_temperature_and_epsilon(temperature, epsilon):
    model = a_model()
    loss = a_loss(model, temperature=temperature, epsilon=epsilon)
    value = loss_of(loss, model, random_crops(0))
    value.backward()
    assert value.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
