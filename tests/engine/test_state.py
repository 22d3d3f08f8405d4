"""Runs that are stopped and resumed, through the public functions."""

import json
import re
import resource
from collections import Counter
from pathlib import Path

import pytest
import torch
from forked import tool
from tiny_runs import (
    QUEUE,
    assert_equal,
    checkpoints,
    lines,
    refused,
    run_tool,
    saved,
    stop_at,
    stopped_at,
    train,
    without,
)

from ssl_platform.data.crops import multicrop, native_crop, opencv_crop
from ssl_platform.engine import checkpoint
from ssl_platform.errors import CheckpointError, DiskError, DivergedError, StopRequested

NUM_STEPS = 12


@pytest.fixture
def small(stoppable) -> list[str]:
    """Its windows of the log reach across checkpoints."""
    return [*without(stoppable, "hooks.log.every_steps"), *QUEUE, "hooks.log.every_steps=3"]


def assert_alike(first: Path, second: Path) -> None:
    assert lines(first) == lines(second)
    for part in ("shared.pt", "rank_0.pt"):
        states = [saved(folder, 3, part) for folder in (first, second)]
        for state in states:
            state.get("hooks", {}).pop("kill", None)
        assert_equal(*states)


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_a_run_stopped_in_the_middle_of_epochs_ends_as_an_unbroken_one(
    asynchronous, small, tmp_path
):
    train(small, tmp_path / "unbroken")
    cut = tmp_path / "cut"
    for step, number, code in ((2, "SIGTERM", 75), (7, "SIGINT", 130), (8, "SIGUSR1", 75)):
        with pytest.raises(StopRequested) as error:
            train(small, cut, stop_at(step, number=number), f"save.asynchronous={asynchronous}")
        assert error.value.exit_code == code
        assert str(error.value) == (
            f"stopped by {number} at step {step}: the same command goes on from the latest "
            "checkpoint"
        )
        assert checkpoints(cut)[-1] == step
    train(small, cut, f"save.asynchronous={asynchronous}")
    assert_alike(tmp_path / "unbroken", cut)


def test_one_of_two_ranks_is_told_and_both_leave_at_the_same_step(small, tmp_path):
    both = [*small, "launch.processes=2", f"output_dir={tmp_path}"]
    done = tool(*both, stop_at(6, rank=1))
    assert done.returncode == 75, done.stderr
    assert "error: stopped by SIGTERM at step 6: " in done.stderr
    assert checkpoints(tmp_path)[-1] == 6
    assert not re.search("Traceback|failed", done.stderr)


def test_the_last_step_is_not_stopped_at(small, tmp_path):
    train(small, tmp_path, stop_at(NUM_STEPS))
    assert checkpoints(tmp_path)[-1] == NUM_STEPS


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ("every_epochs=null every_steps=5 keep=9", [5, 10, 12]),
        ("every_epochs=2 keep=9", [8, 12]),
        ("every_epochs=null", [12]),
        ("every_epochs=null every_minutes=1e-9", [11, 12]),
        ("every_steps=1 keep=1 keep_every_epochs=2", [8, 12]),
    ],
)
def test_when_to_save_and_what_to_keep(options, steps, small, tmp_path):
    train(small, tmp_path, *(f"save.{option}" for option in options.split()))
    assert checkpoints(tmp_path) == steps


def test_a_full_disk_keeps_the_checkpoint_before(small, tmp_path, caplog):
    """No file may grow beyond what a checkpoint needs; then the room is there again."""
    stopped_at(4, small, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "checkpoints" / "step_00000004" / "shared.pt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(DiskError) as error:
            train(small, tmp_path, "save.every_steps=1", "save.max_failures=3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.exit_code == 5
    folder, sizes = tmp_path / "checkpoints", r"[\d.,]+ MiB"
    reason = f"File too large: ulimit -f is {size // 2048}, a checkpoint takes _ MiB"
    assert re.sub(sizes, "_ MiB", str(error.value)) == (
        f"3 of the latest checkpoints could not be written to {folder} (save.max_failures=3; "
        f"{reason}); {folder / 'step_00000004'} is from before: make room, and the same command "
        "goes on"
    )
    warnings = [message for message in caplog.messages if "could not be written" in message]
    assert [re.sub(sizes, "_ MiB", message) for message in warnings] == [
        f"the checkpoint of step {step} could not be written to {folder} ({reason}); the "
        "checkpoints from before stay, and the run goes on"
        for step in (5, 6, 7)
    ]
    assert checkpoints(tmp_path) == [4]
    train(small, tmp_path)
    assert checkpoints(tmp_path) == [8, 12]


def test_a_training_that_diverges_says_at_which_images(small, tmp_path):
    with pytest.raises(DivergedError, match=r"not_finite\.json has the images"):
        train(small, tmp_path, "optimizer.lr=1e30")
    report = json.loads((tmp_path / "not_finite.json").read_text())
    images = report["images"].values()
    assert len(images) == 32 and all("Shapes[" in name for name in images)
    assert report["losses"][0].keys() == {"loss"}


def test_another_trunk_is_refused_with_what_does_not_fit(small, tmp_path):
    stopped_at(2, small, tmp_path)
    with pytest.raises(CheckpointError, match=r"step_00000002: its model is another: .*trunk\."):
        train(small, tmp_path, "trunk.width=16", "resume.allow_changes=[trunk]")


def other_crops(monkeypatch) -> str:
    monkeypatch.setattr(multicrop, "_implementation", lambda: (opencv_crop.apply_crop, "X", "X"))
    return f"crops {'compiled kernel' if native_crop.AVAILABLE else 'OpenCV'} before, X now"


def other_threads(monkeypatch) -> str:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    return "threads 1 before, 2 now"


def other_draws(monkeypatch) -> str:
    monkeypatch.setattr(multicrop.MultiCrop, "draws", "by some other rule")
    return "draws of crops by the names of group and op before, by some other rule now"


@pytest.mark.parametrize("change", [other_crops, other_draws, other_threads])
def test_what_changes_the_bits_is_said_or_refused(change, small, tmp_path, caplog, monkeypatch):
    stopped_at(2, small, tmp_path)
    message = "step_00000002: the result is no longer bit for bit an unbroken run's: "
    message += change(monkeypatch)
    with pytest.raises(CheckpointError, match=rf"{message} \(resume.exact=false goes on\)"):
        train(small, tmp_path, "resume.exact=true")
    train(small, tmp_path)
    assert message in caplog.text


def test_a_run_whose_crops_were_drawn_in_another_way_says_so(small, tmp_path, caplog, monkeypatch):
    with monkeypatch.context() as before:  # as a version that did not know of draws
        before.setattr(multicrop.MultiCrop, "draws", None)
        stopped_at(2, small, tmp_path)
    line = "draws of crops by their place in a list before, by the names of group and op now"
    with pytest.raises(CheckpointError, match=rf"run's: {line} \(resume.exact=false goes on\)"):
        train(small, tmp_path, "resume.exact=true")
    train(small, tmp_path)
    assert line in caplog.text


def test_a_run_can_start_from_another(small, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    stopped_at(6, small, first)
    assert refused(small, second, f"resume.mode={first}", "seed=1")[1:] == ["seed: 0 there, 1 here"]
    assert not second.exists()
    train(small, second, f"resume.mode={first / 'checkpoints' / 'step_00000006'}")
    train(small, first)
    assert_equal(saved(first, 3)["model"], saved(second, 3)["model"])
    assert [line["step"] for line in lines(second)] == [8, 9, 12, 12]
    missing = tmp_path / "missing"
    assert refused(small, tmp_path / "third", f"resume.mode={missing}") == [
        f"resume.mode={missing}: auto, never, or the directory of a run; no {missing}/config.yaml"
    ]


def bank_rows(output_dir: Path, step: int) -> Counter:
    """The rows of all ranks' banks: which image, and what of it."""
    rows_of_all: Counter = Counter()
    for path in (output_dir / "checkpoints" / f"step_{step:08d}").glob("rank_*.pt"):
        buffers = checkpoint.read(path)["buffers"]
        rows = buffers["bank.embeddings"].transpose(0, 1)
        pairs = zip(buffers["bank.index"].tolist(), map(str, rows.tolist()), strict=True)
        rows_of_all.update(pairs)
    return rows_of_all


def test_two_processes_one_and_three(stoppable, tmp_path):
    """The bank and the labels of DeepCluster-v2 are all there, and the run ends where it would."""
    own = ("config=", "loss.", "data.batch", "data.train", "heads.prototypes.num")
    overrides = [
        "config=pretrain/deepcluster_v2/quickstart",
        *without(stoppable, *own),
        "data.batch_size=36",
        "data.train.num_samples=150",  # 4 steps
        "heads.prototypes.num_prototypes=[12, 8]",
        "resume.allow_changes=[launch.processes]",
        "save.keep=9",
        f"output_dir={tmp_path}",
    ]
    stopped = tool(*overrides, "launch.processes=2", stop_at(6))
    assert stopped.returncode == 75, stopped.stderr
    before = bank_rows(tmp_path, 6)
    stopped_at(7, overrides, tmp_path)
    kept = before & bank_rows(tmp_path, 7)
    assert before.total() == 144 and kept.total() == 144 - 36  # a step has written its batch
    run_tool([*overrides, "launch.processes=3"])
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == list(range(1, 13))
    shared = saved(tmp_path, 3)
    assert shared["world_size"] == 3
    assert (shared["loss"]["assignments"] >= 0).sum(dim=1).tolist() == [144, 144]
    assert len({index for index, _ in bank_rows(tmp_path, 12)}) == 144
