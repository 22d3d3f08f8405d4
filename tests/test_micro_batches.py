"""Whole runs by micro-batches and with clipped gradients."""

from pathlib import Path

import pytest
from forked import tool
from test_offline_runs import METHODS, tiny_of
from tiny_runs import (
    QUEUE,
    assert_equal,
    last_saved,
    lines,
    losses,
    refused,
    run_tool,
    train,
    without,
)

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_epoch
from ssl_platform.engine.saver import Saver
from ssl_platform.engine.stopping import StopSignals
from ssl_platform.errors import DivergedError

TWO_STEPS = "data.train.num_samples=64"  # of an epoch
BY_HAND = ["plugins=[clip_hook]", "+hooks.clip={name: ClipByHand, norm: 0.05}"]
SGD = [
    "optimizer=sgd",
    "~optimizer.trust_coefficient",
    "optimizer.lr=0.1",
    "optimizer.weight_decay=1e-4",
]


def test_a_run_killed_between_micro_batches_ends_as_an_unbroken_one(stoppable, tmp_path):
    """On two processes, with batch norms over both."""
    overrides = [
        *stoppable, *QUEUE, TWO_STEPS, "num_epochs=2", "launch.processes=2", "data.micro_batch=4",
        "save.every_steps=1",
    ]  # fmt: skip
    unbroken, cut = tmp_path / "unbroken", tmp_path / "cut"
    run_tool([*overrides, f"output_dir={unbroken}"])
    kill = "+hooks.kill={name: Kill, step: 3, rank: 1, moment: within, victim: all}"
    killed = tool(*overrides, kill, f"output_dir={cut}")
    assert killed.returncode != 0
    assert losses(cut) == losses(unbroken)[:3]
    run_tool([*overrides, f"output_dir={cut}"])
    assert lines(cut) == lines(unbroken)
    for part in ("shared.pt", "rank_0.pt", "rank_1.pt"):
        assert_equal(last_saved(cut, part), last_saved(unbroken, part))


def test_micro_batches_are_a_change_that_is_named(tiny, tmp_path):
    short = [*tiny, TWO_STEPS, "num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn"]
    train(short, tmp_path)
    longer = [*short, "num_epochs=2", "data.micro_batch=8"]
    assert refused(longer, tmp_path)[1:] == ["data.micro_batch: None there, 8 here"]
    size = "data.eval_batch_size=7"  # free
    train(longer, tmp_path, size, "resume.allow_changes=[data.micro_batch]")
    assert len(losses(tmp_path)) == 2 * 2


@pytest.mark.parametrize("optimizer", [[], SGD], ids=["larc", "sgd"])
def test_gradients_are_clipped_after_the_loss_has_dropped_some(optimizer, tiny, tmp_path):
    short = [*tiny, *QUEUE, *optimizer, "num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn"]
    results = assert_clipped_as_by_hand(short, tmp_path, train)
    assert all(line["grad_norm"] > 0.05 for line in lines(results) if "loss" in line)


def test_two_processes_clip_alike(stoppable, tmp_path):
    short = [*stoppable, TWO_STEPS, "num_epochs=1", "schedule.warmup_epochs=0"]
    assert_clipped_as_by_hand(
        [*without(short, "plugins"), "launch.processes=2"],
        tmp_path,
        lambda options, folder, *more: run_tool([*options, *more, f"output_dir={folder}"]),
    )


def assert_clipped_as_by_hand(options: list[str], folder: Path, run) -> Path:
    run(options, folder / "clipped", "clip_grad_norm=0.05", "data.micro_batch=8")
    run(options, folder / "by_hand", *BY_HAND, "data.micro_batch=8")
    assert losses(folder / "clipped") == losses(folder / "by_hand")
    for part in ("model", "optimizer"):
        first, second = (last_saved(folder / name)[part] for name in ("clipped", "by_hand"))
        assert_equal(first, second)
    return folder / "clipped"


def test_a_norm_that_is_not_finite_is_told_by_its_step(tiny, tmp_path):
    with pytest.raises(DivergedError, match="a gradient became NaN or infinite at step 3 "):
        train(tiny, tmp_path, "~hooks.knn", "optimizer.lr=1e30", "clip_grad_norm=1.0")
    assert len(losses(tmp_path)) == 2


@pytest.mark.parametrize("method", METHODS)
def test_the_model_never_sees_more_than_a_micro_batch(method, tiny, tmp_path):
    """Nor when the first bank is filled."""
    overrides = [*tiny_of(method, tiny), "data.micro_batch=8", "~hooks.knn"]
    options = options_of(compose([*overrides, f"output_dir={tmp_path}"]))
    run, seen = Builder(options).run(), set()
    run.model.register_forward_pre_hook(lambda _, given: seen.add(len(given[0][0])))
    run.hooks = {}
    with StopSignals() as stop:
        train_epoch(run, Saver(tmp_path, options.save), stop)
    assert seen == {8}


def test_a_profile_knows_the_second_pass(tiny, tmp_path):
    options = ["profile=true", "~hooks.knn", "data.micro_batch=8"]
    parts = train(tiny, tmp_path / "by_parts", *options)["profile"]["parts"]
    assert parts["backward"]["share"] > parts["forward"]["share"] / 2
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
