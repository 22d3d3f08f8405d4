"""Runs that go on with another batch, other images or another number of epochs."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import TINY
from tiny_runs import checkpoints, lines, refused, stopped_at, train, without

from ssl_platform.data.loading.sampler import ShuffledSampler
from ssl_platform.engine import checkpoint
from ssl_platform.engine.position import change_of_length, restore_position
from ssl_platform.engine.run import Run
from ssl_platform.errors import CheckpointError
from ssl_platform.losses.swav import SwAVLoss
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.optim.schedules import EpochCosine, Steps, WarmupCosine

STOP = 6  # of 12: in the middle of the second epoch


@pytest.fixture
def small(stoppable) -> list[str]:
    return [*stoppable, "~hooks.crops"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run of 128 images in batches of 32 that was stopped; not to be written to."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    options = [*without(TINY, "hooks.knn"), "~hooks.knn", "~hooks.crops", "plugins=[kill_hook]"]
    stopped_at(STOP, options, folder)
    return folder


@pytest.fixture
def run_dir(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def rates(output_dir: Path) -> dict[int, float]:
    """Learning rate by step."""
    return {line["step"]: line["lr"] for line in lines(output_dir) if "lr" in line}


def warm_cosine(num_epochs: int, steps_per_epoch: int) -> WarmupCosine:
    """The schedule of the run."""
    return WarmupCosine(
        0.12, num_epochs, steps_per_epoch, warmup_epochs=1, start_lr=0.0, final_lr=0.0
    )


@pytest.mark.parametrize(
    ("change", "num_epochs", "steps_per_epoch", "position"),
    [
        ("data.batch_size=16", 3, 8, 12),
        ("data.batch_size=64", 3, 2, 3),
        ("data.batch_size=20", 3, 6, 9),  # 64 of 128 images are done, three batches are left
        ("data.train.num_samples=96", 3, 3, 5),
        ("data.train.num_samples=200", 3, 6, 9),
        ("num_epochs=5", 5, 4, 6),
        ("num_epochs=2", 2, 4, 6),
    ],
)
def test_a_run_goes_on_where_it_was_with_other_epochs(
    change, num_epochs, steps_per_epoch, position, small, run_dir, monkeypatch, caplog
):
    """Learning rate, frozen prototypes, lines and time left follow the position in the epochs."""
    total, frozen = num_epochs * steps_per_epoch, []
    monkeypatch.setattr(PrototypeHead, "drop_prototype_gradients", lambda _: frozen.append(1))
    caplog.set_level("INFO")
    allowed = "[output_dir, data.batch_size, data.train, loss.freeze_prototypes_steps]"
    freezing = f"loss.freeze_prototypes_steps={position + 2}"
    train(small, run_dir, change, freezing, f"resume.allow_changes={allowed}")
    schedule, rate_at = warm_cosine(num_epochs, steps_per_epoch), rates(run_dir)
    assert list(rate_at) == list(range(1, STOP + total - position + 1))
    assert list(rate_at.values())[STOP:] == [schedule(p) for p in range(position, total)]
    assert len(frozen) == 2
    heads = [m.partition(":")[0] for m in caplog.messages if re.match(r"epoch \d+/", m)]
    assert heads == [
        f"epoch {1 + p // steps_per_epoch}/{num_epochs} step {p + 1}/{total}"
        for p in range(position, total)
    ]
    assert all(", ETA 0:0" in m for m in caplog.messages if m.startswith(tuple(heads)))
    (message,) = [m for m in caplog.messages if m.startswith("the schedule is another")]
    assert message == (
        f"the schedule is another (3 epochs of 4 steps before, {num_epochs} epochs of "
        f"{steps_per_epoch} steps now): lr {rate_at[STOP]:.3g} at the step before, "
        f"{schedule(position):.3g} at the next (epoch 2), {schedule(total - 1):.3g} at the last"
    )
    assert checkpoints(run_dir)[-1] == STOP + total - position


def test_an_epoch_with_less_than_a_batch_left_is_over(small, run_dir):
    """After 3 of 4 batches of 32 there is no batch of 64 left; the next epoch has two."""
    stopped_at(7, small, run_dir, "resume.allow_changes=[output_dir]")
    change = ["data.batch_size=64", "resume.allow_changes=[output_dir, data.batch_size]"]
    train(small, run_dir, *change)
    schedule = warm_cosine(3, 2)
    assert list(rates(run_dir).values())[7:] == [schedule(4), schedule(5)]
    assert checkpoints(run_dir)[-1] == 9


def test_a_finished_run_goes_on_for_more_epochs_and_not_for_fewer(pretrained, tmp_path, tiny):
    run_dir = Path(shutil.copytree(pretrained, tmp_path / "run"))
    options = [*tiny, "~hooks.knn"]
    config = (run_dir / "config.yaml").read_text()
    fewer = ["num_epochs=1", "schedule.warmup_epochs=0", "resume.allow_changes=[schedule]"]
    for place in (pretrained, run_dir, pretrained / "checkpoints" / "step_00000008"):
        here = pretrained if place == pretrained else tmp_path / "another"
        assert refused(options, here, *fewer, f"resume.mode={place}") == [
            f"num_epochs=1: {place} has begun epoch 2 already; num_epochs=2 or more goes on, a new "
            "run needs its own name=..."
        ]
    assert (pretrained / "config.yaml").read_text() == config
    assert not (tmp_path / "another").exists()
    more = ["num_epochs=3", "resume.allow_changes=[output_dir]"]
    with pytest.raises(
        CheckpointError, match="2 epochs of 4 steps before, 3 epochs of 4 steps now"
    ):
        train(options, run_dir, *more, "resume.exact=true")
    train(options, run_dir, *more)
    assert list(rates(run_dir).values())[8:] == [warm_cosine(3, 4)(p) for p in range(8, 12)]


@pytest.mark.parametrize(("batch_size", "length"), [(20, 60), (128, 0)])
def test_a_queue_of_another_length_keeps_its_newest(batch_size, length, small, tmp_path, caplog):
    caplog.set_level("INFO")
    queue = ["loss.queue_length=64", "loss.queue_start_epoch=0", "num_epochs=2"]
    queue += ["resume.allow_changes=[data.batch_size]"]
    stopped_at(3, small, tmp_path, *queue)
    before = checkpoint.read(tmp_path / "checkpoints" / "step_00000003" / "rank_0.pt")["buffers"]
    taken, start = [], SwAVLoss.on_train_start

    def look(loss: SwAVLoss, run: Run) -> None:
        start(loss, run)
        taken.append(loss.queue.clone())

    with patch.object(SwAVLoss, "on_train_start", look):
        train(small, tmp_path, *queue, f"data.batch_size={batch_size}")
    assert taken[0].equal(before["queue"][:, :length])
    assert f"the queue had 64 rows in each process, and has {length}" in caplog.text


def test_a_queue_that_has_become_longer_is_used_when_it_is_full():
    loss = object.__new__(SwAVLoss)
    torch.nn.Module.__init__(loss)
    loss.queue = torch.zeros(2, 6, 3)
    shorter = torch.rand(2, 4, 3)
    longer = loss.fitted("queue", shorter)
    assert longer[:, :4].equal(shorter)
    assert not longer[:, 4:].any()
    of_other_width = torch.rand(2, 4, 5)
    assert loss.fitted("queue", of_other_width) is of_other_width


def test_a_bank_that_goes_on_with_half_the_batch_has_each_image_once(small, tmp_path):
    options = [
        "config=pretrain/deepcluster_v2/quickstart",
        *without(small, "config=", "loss.", "heads.prototypes.num"),
        "heads.prototypes.num_prototypes=[8]",
        "resume.allow_changes=[data.batch_size, data.train]",
        "num_epochs=2",
    ]
    stopped_at(2, options, tmp_path)
    with pytest.raises(CheckpointError, match=r"assignments 1 x 128 before, 1 x 96 now"):
        train(options, tmp_path, "data.train.num_samples=96")
    stopped_at(6, options, tmp_path, "data.batch_size=16")
    bank = checkpoint.read(tmp_path / "checkpoints" / "step_00000006" / "rank_0.pt")["buffers"]
    assert sorted(bank["bank.index"].tolist()) == list(range(128))


def at(state: dict[str, Any], **sizes: Any) -> SimpleNamespace:
    """A run at the position of a checkpoint."""
    sizes = {"num_samples": 128, "batch_size": 32, "drop_last": True} | sizes
    sampler = ShuffledSampler(**sizes, rank=0, world_size=1, seed=0)
    run = SimpleNamespace(train_sampler=sampler)
    restore_position(run, state)
    run.position = run.epoch * sampler.steps_per_epoch + run.epoch_step
    return run


KEPT = {"epoch": 4, "epoch_step": 2, "epoch_images": 64, "step": 18, "num_images": 128}
OLD = {"epoch": 4, "epoch_step": 2, "step": 18}  # of the release before


@pytest.mark.parametrize("state", [KEPT, OLD])
@pytest.mark.parametrize(
    ("sizes", "epoch_step", "position"),
    [
        ({}, 2, 18),
        ({"batch_size": 16}, 4, 36),
        ({"batch_size": 64}, 1, 9),
        ({"batch_size": 24}, 3, 23),  # 5 steps, 2 of them left
        ({"batch_size": 24, "drop_last": False}, 3, 27),  # 6 steps, 3 of them left
        ({"drop_last": False}, 2, 18),
        ({"batch_size": 1}, 64, 576),
        ({"num_samples": 130, "drop_last": False, "batch_size": 13}, 5, 45),
        ({"num_samples": 64}, 1, 9),
        ({"num_samples": 1280}, 20, 180),
    ],
)
def test_the_position_follows_from_the_epoch(state, sizes, epoch_step, position):
    """That is what drop_last, another batch, other images and a part of them change."""
    run = at(state, **sizes)
    assert (run.epoch, run.epoch_step, run.position, run.step) == (4, epoch_step, position, 18)
    spe = run.train_sampler.steps_per_epoch
    assert EpochCosine(1.0, 10, spe)(run.position) == EpochCosine(1.0, 10, 1)(4)
    assert Steps(1.0, 10, spe, milestones=[4, 5], factor=0.1)(run.position) == 0.1
    at_start = at({k: 0 if k.startswith("epoch_") else v for k, v in state.items()}, **sizes)
    assert (at_start.epoch_step, at_start.epoch_images) == (0, 0)


@pytest.mark.parametrize(
    ("epoch", "epoch_step", "change"),
    [(1, 2, "epochs of 8 steps before, 3 epochs of 4 steps now"), (0, 10, ""), (2, 2, "")],
)
def test_an_old_checkpoint_tells_other_batches_by_its_steps(epoch, epoch_step, change):
    run: Any = SimpleNamespace(num_epochs=3, train_sampler=SimpleNamespace(steps_per_epoch=4))
    state = {"step": 10, "epoch": epoch, "epoch_step": epoch_step}
    assert change_of_length(run, state) == change


def test_a_position_without_a_batch_left_is_at_the_end_of_its_epoch():
    run = at(KEPT, batch_size=128)
    steps_left = run.train_sampler.steps_after(run.epoch_images)
    assert (run.epoch_step, run.position, steps_left) == (1, 5, 0)


def test_the_first_epoch_of_an_old_checkpoint_goes_on():
    run = at({"epoch": 0, "epoch_step": 3, "step": 3})
    assert (run.epoch_step, run.epoch_images) == (3, 96)
    assert at({"epoch": 0, "epoch_step": 9, "step": 9}).epoch_step == 4  # it had more steps


def test_classes_that_have_another_number_now_are_told_of(small, photographs, tmp_path, caplog):
    options = [
        "config=pretrain/swav/folder",
        *without(small, "config=", "data.train", "data.val", "data.batch", "loss."),
        f"data.train.path={photographs}",
        "data.transform.crops.large.size=32",
        "data.transform.crops.small.size=20",
        "data.batch_size=4",
        "heads.prototypes.num_prototypes=[4]",
        "loss.queue_length=0",
        "trunk=resnet18_small",
        "resume.allow_changes=[data.train]",
    ]
    stopped_at(2, options, tmp_path / "run")
    (photographs / "class1").rename(photographs / "other")
    train(options, tmp_path / "run", "num_epochs=2")
    assert [message for message in caplog.messages if "another number" in message] == [
        "data.train: 2 classes have another number now, e.g. 1 was class1 and is class2: a head "
        "that was trained on labels takes the one for the other"
    ]
