import json
import math
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks
from tiny_losses import (
    BATCH,
    DIM,
    NUM_PROTOTYPES,
    SWAV,
    a_batch,
    a_loss,
    a_model,
    loss_of,
    random_crops,
    recorded_assignments,
    some_data,
    unit,
    weight_of,
)
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.engine.loop import train_step
from ssl_platform.loggers.group import LoggerGroup
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-eps{case['epsilon']}")
def test_loss_codes_and_gradients_equal_those_of_the_reference(case):
    expected = {
        name: torch.tensor(value, dtype=torch.float64) for name, value in case["expected"].items()
    }
    z_raw = torch.tensor(case["z_raw"], dtype=torch.float64, requires_grad=True)
    model = a_model(len(case["prototypes_raw"]), dim=z_raw.shape[1])
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
    model = a_model(num_prototypes)
    weight_of(model).data = torch.ones(num_prototypes, DIM, dtype=torch.float64)
    loss = a_loss(model)
    assert loss_of(loss, model, random_crops(0)).item() == pytest.approx(math.log(num_prototypes))
    assert loss.uniform_loss == pytest.approx(math.log(num_prototypes))


@pytest.mark.parametrize("assign_crops", [[0], [2], [0, 1], [3, 1], [0, 1, 2, 3]])
def test_the_loss_is_the_mean_cross_entropy_over_pairs_of_crops(assign_crops):
    model, crops = a_model(), random_crops(0)
    loss = a_loss(model, assign_crops=assign_crops)
    with recorded_assignments() as assignments:
        value = loss_of(loss, model, crops)
    unit_weight = weight_of(model).detach()
    pairs = [
        F.cross_entropy(unit(crop) @ unit_weight.T / 0.1, codes)
        for target, (_, codes) in zip(assign_crops, assignments, strict=True)
        for position, crop in enumerate(crops)
        if position != target
    ]
    torch.testing.assert_close(value.detach(), torch.stack(pairs).mean())


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


@pytest.mark.parametrize("temperature", [MIN_TEMPERATURE, 1e300])
@pytest.mark.parametrize("epsilon", [1e-320, 1e300])
def test_the_loss_and_its_gradient_are_finite_at_any_temperature_and_epsilon(temperature, epsilon):
    model = a_model()
    loss = a_loss(model, temperature=temperature, epsilon=epsilon)
    value = loss_of(loss, model, random_crops(0))
    value.backward()
    assert value.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# Frozen prototypes


class _Run(SimpleNamespace):
    @property
    def position(self) -> int:
        return self.step


def a_run(model: SSLModel, loss: SwAVLoss, optimizer: torch.optim.Optimizer) -> SimpleNamespace:
    run = _Run(
        model=model,
        replica=model,
        loss=loss,
        optimizer=optimizer,
        schedule=lambda step: 0.1,
        schedules={},
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=torch.device("cpu"),
        autocast_dtype=None,
        micro_batch=None,
        clip_grad_norm=None,
        train_sampler=SimpleNamespace(batch_size=BATCH),
        epoch=0,
        epoch_step=0,
        epoch_images=0,
        loggers=LoggerGroup(),
        step=0,
    )
    run.fire = lambda event: getattr(loss, event)(run)
    return run


def trained_weights(run: SimpleNamespace, num_epochs: int, steps_per_epoch: int) -> list[Tensor]:
    """The unit prototypes before training and after each step."""
    weights = [unit(weight_of(run.model).detach())]
    for run.epoch in range(num_epochs):
        run.fire("on_epoch_start")
        for _ in range(steps_per_epoch):
            train_step(a_batch(random_crops(run.step)), run)
            weights.append(unit(weight_of(run.model).detach()))
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
            for crops in ([], [4], [-1], [0, 0], [0, 1, 9])
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
        (
            {"head": "none"},
            {},
            "head=none: has to be a PrototypeHead; the model's heads are ['plain', 'prototypes', "
            "'sets']",
        ),
        (
            {"head": "plain"},
            {},
            "head=plain: has to be a PrototypeHead; the model's heads are ['plain', 'prototypes', "
            "'sets']",
        ),
        ({"head": "sets"}, {}, "head=sets: SwAV needs one set of prototypes, it has 2"),
    ],
)
def test_an_option_that_cannot_work_is_named_with_what_is_expected(options, data, message):
    model = a_model()
    model.heads["plain"] = nn.Identity()
    model.heads["sets"] = PrototypeHead(
        DIM, hidden_dim=0, out_dim=DIM, num_prototypes=[5, 5], batch_norm=False
    )
    with pytest.raises(ValueError) as error:
        a_loss(model, data=some_data(**data), **options)
    assert str(error.value) == message


def test_all_options_that_cannot_work_are_named_at_once():
    with pytest.raises(ValueError) as error:
        a_loss(a_model(), data=some_data(drop_last=False), assign_crops=[7], queue_length=-1)
    named = [line.split("=")[0] for line in str(error.value).splitlines()]
    assert named == ["assign_crops", "drop_last", "queue_length"]


@pytest.mark.parametrize(
    ("num_prototypes", "queue_length", "world_size", "is_warned_of"),
    [(4, 0, 1, False), (5, 0, 1, True), (5, 4, 1, False), (9, 7, 1, True), (8, 0, 2, False)],
)
def test_more_prototypes_than_samples_are_warned_of(
    num_prototypes, queue_length, world_size, is_warned_of
):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = SWAV | {"queue_length": queue_length}
        SwAVLoss(a_model(num_prototypes), some_data(world_size=world_size), **options)
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
    close = {"rtol": 1e-6, "atol": 1e-12}
    for first, second, expected in zip(*on_ranks, whole, strict=True):
        for name in ("loss", "gradient"):
            mean = (first[name] + second[name]) / 2
            torch.testing.assert_close(mean, expected[name], **close)
        codes = torch.cat([first["codes"], second["codes"]], dim=1)
        torch.testing.assert_close(codes, expected["codes"], **close)
