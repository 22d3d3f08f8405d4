"""The directory of a run: which changes it allows, and what is done with what lies there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny_runs import checkpoints, lines, refused, saved, stopped_at, train, without

from ssl_platform.errors import CheckpointError, DataError
from ssl_platform.job import rules
from ssl_platform.launch.launchers import Local
from ssl_platform.zoo.trained_run import TrainedRun

NUM_STEPS = 12


def test_changes_are_listed_and_can_be_allowed(stoppable, tmp_path):
    stopped_at(2, stoppable, tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    changed = ["optimizer.lr=0.01", "optimizer.momentum=0.5"]
    changed += ["num_epochs=4", "data.num_workers=2", "save.keep=3"]
    first, *differences = refused(stoppable, tmp_path, *changed)
    assert first == (
        f"output_dir={tmp_path}: holds a run with other settings; give this one its own name=..., "
        "remove the directory, or allow it with resume.allow_changes=[optimizer.lr, "
        "optimizer.momentum]"
    )
    assert differences == [
        "optimizer.lr: 0.12 there, 0.01 here",
        "optimizer.momentum: 0.9 there, 0.5 here",
    ]
    assert (tmp_path / "config.yaml").read_text() == before
    train(stoppable, tmp_path, *changed, "resume.allow_changes=[optimizer]")
    assert checkpoints(tmp_path)[-1] == 16
    rates = [line["lr"] for line in lines(tmp_path) if "lr" in line and line["step"] > 2]
    assert max(rates) <= 0.01
    (group,) = saved(tmp_path, 4)["optimizer"]["param_groups"]
    assert group["momentum"] == 0.5


def test_a_run_goes_on_where_it_was_moved_copied_or_is_reached_otherwise(
    stoppable, tmp_path, monkeypatch, photographs
):
    """Its images may have moved too; they are held against what they were."""
    few = without(stoppable, "data.", "loss.queue", "num_epochs")
    few += ["data=folder", "data.batch_size=4", "data.num_workers=0", "loss.queue_length=0"]
    few += [f"data.transform.crops.{c}.size={s}" for c, s in (("large", 32), ("small", 16))]
    few += ["heads.prototypes.num_prototypes=[3]", "num_epochs=2"]
    first = tmp_path / "first"
    stopped_at(2, few, first, f"data.train.path={photographs}", "name=mine")
    copied = shutil.copytree(first, tmp_path / "copied")
    (tmp_path / "link").symlink_to(copied)
    moved = photographs.rename(tmp_path / "images")
    images = f"data.train.path={moved}"
    monkeypatch.chdir(tmp_path)
    assert refused(few, Path("copied"), images)[1:] == [
        f"data.train.path: {photographs} there, {moved} here"
    ]
    train(few, Path("link/"), images, "name=other", "resume.allow_changes=[data.train.path]")
    assert lines(first) == lines(copied)[: len(lines(first))]
    assert checkpoints(copied)[-1] == 6
    train(few, copied, "data.train.path=./images/")  # the same place
    (moved / "class1" / "more.jpg").symlink_to(moved / "class1" / "1.jpg")
    with pytest.raises(CheckpointError, match="was written with other training images"):
        train(few, first, images, "resume.allow_changes=[data.train.path]")


def make_old(output_dir: Path) -> str:
    """Leave out of a run's config what a later version could have added; returns its path."""
    path = output_dir / "config.yaml"
    saved: Any = OmegaConf.load(path)
    del saved["precision"], saved["launch"]["max_restarts"], saved["sync_batch_norm"]["group_size"]
    OmegaConf.save(saved, path)
    return str(path)


YOUNG_KEYS = "precision=auto, sync_batch_norm.group_size=0, launch.max_restarts=0"


def test_a_run_goes_on_that_is_older_than_some_keys(
    stoppable, tmp_path, photographs, caplog, monkeypatch
):
    monkeypatch.setattr(rules, "cpu_is_fast_in", lambda dtype: True)
    (photographs / "list.txt").write_text("class1/1.jpg\n")
    val = f"data.val={{name: ListFile, path: {photographs}/list.txt, allow_outside: false}}"
    stoppable = [*without(stoppable, "data.val."), val]
    stopped_at(2, stoppable, tmp_path)
    path = make_old(tmp_path)
    saved: Any = OmegaConf.load(path)
    del saved["data"]["val"]["allow_outside"]  # an option of a component, with a default
    OmegaConf.save(saved, path)
    assert refused(stoppable, tmp_path, "data.val.allow_outside=true")[1:] == [
        "data.val.allow_outside: False there, True here"
    ]
    caplog.clear()
    assert refused(stoppable, tmp_path, "precision=bfloat16", "seed=1")[1:] == [
        "precision: auto there, bfloat16 here",
        "seed: 0 there, 1 here",
    ]
    caplog.clear()
    train(stoppable, tmp_path)
    older = [m for m in caplog.messages if "older" in m]
    assert older == [f"{path} is older than some keys, taken at their defaults: {YOUNG_KEYS}"]
    assert checkpoints(tmp_path)[-1] == NUM_STEPS
    assert "group_size" in Path(path).read_text()


def test_a_run_is_evaluated_that_is_older_than_some_keys(pretrained, tmp_path, caplog):
    shutil.copytree(pretrained, tmp_path / "run")
    expected = TrainedRun.open(str(tmp_path / "run")).options
    path = make_old(tmp_path / "run")
    caplog.set_level("INFO")
    assert TrainedRun.open(str(tmp_path / "run")).options == expected
    assert caplog.messages == [
        f"{path} is older than some keys, taken at their defaults: {YOUNG_KEYS}"
    ]
    Path(path).write_text("seed: [0")
    with pytest.raises(ValueError, match=r"^checkpoint=.*config.yaml cannot be read \(.*\)$"):
        TrainedRun.open(str(tmp_path / "run"))


def test_a_corrected_command_takes_the_place_of_one_that_never_began(
    stoppable, tmp_path, monkeypatch
):
    def work(launcher, jobs):
        raise DataError("nothing can be read")

    with monkeypatch.context() as patched, pytest.raises(DataError):
        patched.setattr(Local, "launch", work)
        train(stoppable, tmp_path, "seed=1")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.yaml"}
    train(stoppable, tmp_path, "seed=2")
    assert refused(stoppable, tmp_path, "seed=1")[1:] == ["seed: 2 there, 1 here"]


@pytest.mark.parametrize("content", ["seed: [0", "", "- 1", "task: 3", "seed: ${nowhere}"])
def test_a_config_that_cannot_be_read_is_one_line(content, stoppable, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    (problem,) = refused(stoppable, tmp_path)
    assert problem.startswith(f"{tmp_path / 'config.yaml'}: the config of a run, cannot be read (")
    assert "\n" not in problem


def test_a_new_run_leaves_a_used_directory_alone(stoppable, tmp_path, monkeypatch):
    stopped_at(2, stoppable, tmp_path, "resume=never")
    (problem,) = refused(stoppable, tmp_path, "resume=never")
    assert problem == (
        f"output_dir={tmp_path}: holds a run, and resume.mode=never leaves it alone; give this one "
        "its own name=..., or go on with resume=auto"
    )
    assert refused(stoppable, tmp_path, "resume.mode=never") == [problem]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # the job itself, requeued
    train(stoppable, tmp_path, "resume=never")
