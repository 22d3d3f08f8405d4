"""Losses without a run: the same numbers as with one, and a state that one file holds."""

import copy
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from ranks import run_on_ranks
from tiny_losses import a_batch, a_loss, random_crops, some_data, weight_of
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.errors import ConfigError
from ssl_platform.losses.deepcluster_v2 import DeepClusterV2Loss
from ssl_platform.losses.sela_v2 import SeLaV2Loss
from ssl_platform.losses.swav import SwAVLoss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import PrototypeHead

BATCH, DIM, STEPS = 4, 6, 3  # of an epoch
QUEUE = {"queue_length": 2 * BATCH, "queue_start_epoch": 1, "freeze_prototypes_epochs": 1}


def a_model(num_prototypes: int = 4, sets: int = 1) -> SSLModel:
    torch.manual_seed(0)
    head = PrototypeHead(
        DIM, hidden_dim=8, out_dim=3, num_prototypes=[num_prototypes] * sets, batch_norm=True
    )
    return SSLModel(nn.Identity(), {"prototypes": head})


def crops_of(step: int, rows: slice = slice(None), batch: int = BATCH) -> list[Tensor]:
    return [crop[rows].float() for crop in random_crops(step, 3, batch, DIM)]


def a_criterion(model: SSLModel, **options):
    return SwAVLoss.standalone(model, **({"num_crops": 3, "batch_size": BATCH} | options))


def trained_alone(model: SSLModel, criterion, steps: range, rows: slice = slice(None)):
    """Losses of some steps, with an optimizer that would move frozen prototypes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    losses = []
    for step in steps:
        batch = crops_of(step, rows, criterion.batch_size * distributed.world_size())
        loss = criterion(model(batch), epoch=step // STEPS)
        optimizer.zero_grad()
        loss.backward()
        criterion.after_backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def trained_with_a_run(model: SSLModel, loss: SwAVLoss, steps: range) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    losses = []
    for step in steps:
        run = SimpleNamespace(model=model, epoch=step // STEPS, position=step)
        if step % STEPS == 0:
            loss.on_epoch_start(run)
        batch = crops_of(step)
        value = loss(model, model(batch), a_batch(batch))["loss"]
        optimizer.zero_grad()
        value.backward()
        loss.on_backward_end(run)
        optimizer.step()
        losses.append(value.detach())
    return losses


@pytest.mark.parametrize("options", [{}, QUEUE, QUEUE | {"freeze_prototypes_steps": 5}])
def test_swav_alone_is_swav_in_a_run(options):
    model, other = a_model(), a_model()
    loss = a_loss(other, data=some_data(num_crops=3), **options).float()
    expected = trained_with_a_run(other, loss, range(4 * STEPS))
    assert trained_alone(model, a_criterion(model, **options), range(4 * STEPS)) == expected
    assert torch.equal(weight_of(model), weight_of(other))


def test_its_defaults_are_those_of_the_recipes():
    for kind, file, further in (
        (SwAVLoss, "swav", {}),
        (DeepClusterV2Loss, "deepcluster_v2", {"num_samples": 40}),
        (SeLaV2Loss, "sela_v2", {"num_samples": 40}),
    ):
        criterion = kind.standalone(a_model(), num_crops=3, batch_size=BATCH, **further)
        shipped = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "loss" / f"{file}.yaml"))
        assert {"name": kind.__name__, **criterion.options} == shipped


def test_what_goes_on_from_a_file_ends_as_what_was_not_stopped(tmp_path):
    model = a_model()
    criterion = a_criterion(model, **QUEUE)
    trained_alone(model, criterion, range(7))
    parts = nn.ModuleDict({"model": model, "criterion": criterion})  # as in a Lightning module
    torch.save(parts.state_dict(), tmp_path / "parts.pt")
    expected = trained_alone(model, criterion, range(7, 12))

    torch.manual_seed(1)
    again = a_model()
    parts = nn.ModuleDict({"model": again, "criterion": a_criterion(again, **QUEUE)})
    parts.load_state_dict(torch.load(tmp_path / "parts.pt"))
    assert parts["criterion"].loss.queue.any()
    assert trained_alone(again, parts["criterion"], range(7, 12)) == expected
    assert not [name for name, _ in criterion.named_parameters()]


def test_a_saved_loss_of_other_options_is_refused_in_one_line():
    criterion = a_criterion(a_model(), assign_crops=[0], **QUEUE)
    with pytest.raises(ConfigError, match="saved with other options") as caught:
        a_criterion(a_model(), **QUEUE).load_state_dict(criterion.state_dict())
    assert "\n" not in str(caught.value)


def test_in_eval_mode_nothing_changes():
    model = a_model()
    criterion = a_criterion(model, **QUEUE)
    trained_alone(model, criterion, range(8))
    before = copy.deepcopy(criterion.state_dict()["_extra_state"])
    criterion.eval(), model.eval()
    assert criterion(model(crops_of(99, slice(0, 2))), epoch=9).isfinite()
    after = criterion.state_dict()["_extra_state"]
    assert (after["step"], after["epoch"]) == (before["step"], before["epoch"])
    assert torch.equal(after["ranks"][0]["queue"], before["ranks"][0]["queue"])


def test_it_is_computed_in_float32_under_autocast():
    model = a_model()
    outputs = model(crops_of(0))
    plain = a_criterion(model)(outputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(a_criterion(model)(outputs), plain)


REFUSED = {
    "epsilon": (-1, "SwAVLoss.epsilon=-1: above 0, e.g. 0.05"),
    "queue_length": (-1, "SwAVLoss.queue_length=-1: 0 or more, 0 for none"),
    "temperature": ("x", "SwAVLoss.temperature=x: should be a valid number"),
    "assign_crops": ([0, 3], "SwAVLoss.assign_crops=[0, 3]: different positions of crops, from 0"),
    "head": ("mine", "SwAVLoss.head=mine: has to be a PrototypeHead; the model's heads are"),
    "batch_size": (0, "SwAVLoss: batch_size=0: a whole number from 1 on"),
    "num_crops": (2.5, "SwAVLoss: num_crops=2.5: a whole number from 1 on"),
    "model": (nn.Identity(), "SwAVLoss: model: an SSLModel, not a Identity"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_argument_that_cannot_work_is_one_line(name):
    value, told = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        a_criterion(**({"model": a_model()} | {name: value}))
    (line,) = caught.value.problems
    assert line.startswith(told)


def test_a_call_that_is_forgotten_is_told():
    model = a_model()
    criterion = a_criterion(model, freeze_prototypes_steps=2)
    criterion(model(crops_of(0))).backward()
    with pytest.raises(ConfigError, match=r"after_backward\(\) keeps the prototypes frozen"):
        criterion(model(crops_of(1)))
    with pytest.raises(ConfigError, match="queue_start_epoch=1 counts epochs"):
        a_criterion(model, **QUEUE)(model(crops_of(0)))
    with pytest.raises(ConfigError, match=r"the outputs have 9 rows, not num_crops=3 x batch_size"):
        a_criterion(model)(model(crops_of(0, slice(0, 3))))
    labels = SeLaV2Loss.standalone(model, num_crops=3, batch_size=BATCH, num_samples=40)
    with pytest.raises(ConfigError, match=r"call start_epoch\(epoch, batches\) before"):
        labels(model(crops_of(0)), torch.arange(BATCH))


def steps_of_a_rank(over_ranks: bool) -> tuple[list[Tensor], dict]:
    rank, model = distributed.rank(), a_model()
    model.heads["prototypes"].projection = nn.Linear(DIM, 3)  # no batch norm: each row for itself
    options = QUEUE | {"queue_length": 8 if over_ranks else 4}
    criterion = a_criterion(model, batch_size=2, over_ranks=over_ranks, **options)
    losses = []
    for step in range(7):
        outputs = model(crops_of(step, slice(2 * rank, 2 * rank + 2)))
        losses.append(criterion(outputs, epoch=step // STEPS).detach())
        criterion.after_backward()
    return losses, criterion.state_dict()["_extra_state"]


def steps_of_one(rows: slice, batch_size: int, state: dict | None = None):
    model = a_model()
    model.heads["prototypes"].projection = nn.Linear(DIM, 3)
    torch.manual_seed(0)
    criterion = a_criterion(
        model, batch_size=batch_size, **QUEUE | {"queue_length": 2 * batch_size}
    )
    if state is not None:
        criterion.set_extra_state(state)
        return criterion
    losses = []
    for step in range(7):
        losses.append(criterion(model(crops_of(step, rows)), epoch=step // STEPS).detach())
        criterion.after_backward()
    return losses, criterion.state_dict()["_extra_state"]


def test_two_ranks_are_one_and_either_of_them_saves_both():
    ranks, (one, state) = run_on_ranks(steps_of_a_rank, 2, True), steps_of_one(slice(0, 4), 4)
    mean = torch.stack([torch.stack(losses) for losses, _ in ranks]).mean(dim=0)
    torch.testing.assert_close(mean, torch.stack(one))
    for _, saved in ranks:
        torch.testing.assert_close(
            steps_of_one(slice(0, 4), 4, saved).loss.queue, state["ranks"][0]["queue"]
        )


def test_without_the_switch_each_rank_is_on_its_own():
    for rank, (losses, saved) in enumerate(run_on_ranks(steps_of_a_rank, 2, False)):
        own, state = steps_of_one(slice(2 * rank, 2 * rank + 2), 2)
        torch.testing.assert_close(losses, own)
        torch.testing.assert_close(saved["ranks"][rank]["queue"], state["ranks"][0]["queue"])


@pytest.mark.parametrize("kind", [DeepClusterV2Loss, SeLaV2Loss])
def test_the_offline_methods_alone_learn_and_go_on(kind):
    images = torch.randn(10 * BATCH, DIM, generator=torch.Generator().manual_seed(3))

    def batches():
        for index in torch.arange(len(images)).split(BATCH):
            yield [images[index] + 0.1 * crop for crop in range(3)], index

    def epoch_of(epoch: int, model: SSLModel, criterion, optimizer) -> float:
        criterion.start_epoch(epoch, batches())
        total = 0.0
        for crops, index in batches():
            loss = criterion(model(crops), index)
            optimizer.zero_grad()
            loss.backward()
            criterion.after_backward()
            optimizer.step()
            total += loss.item() / 10
        return total

    def parts() -> tuple:
        model = a_model(sets=2)
        criterion = kind.standalone(model, num_samples=40, num_crops=3, batch_size=BATCH)
        return model, criterion, torch.optim.SGD(model.parameters(), lr=0.1)

    unbroken, stopped = parts(), parts()
    losses = [epoch_of(epoch, *unbroken) for epoch in range(4)]
    assert losses[-1] < losses[0]
    assert [epoch_of(epoch, *stopped) for epoch in range(2)] == losses[:2]
    other = parts()
    for part, saved in zip(other, stopped, strict=True):
        part.load_state_dict(saved.state_dict())
    assert [epoch_of(epoch, *other) for epoch in (2, 3)] == losses[2:]
