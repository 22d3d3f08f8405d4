"""Runs that are stopped, killed, resumed, changed and refused, through the public functions."""

import json
import re
import resource
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import tool
from omegaconf import OmegaConf
from test_training import QUEUE, assert_equal, run_tool, saved, train

from ssl_platform.data.crops import multicrop, native_crop, opencv_crop
from ssl_platform.engine import checkpoint
from ssl_platform.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DiskError,
    DivergedError,
    StopRequested,
)
from ssl_platform.job import rules, running
from ssl_platform.zoo.trained_run import TrainedRun

HERE = Path(__file__).parent
NUM_STEPS = 12


@pytest.fixture(autouse=True)
def no_traces_of_the_plugin(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def small(tiny) -> list[str]:
    """Without what these tests do not need; its windows of the log reach across checkpoints."""
    return [
        *(o for o in tiny if not o.startswith(("hooks.knn", "hooks.log.every_steps"))),
        *QUEUE,
        "~hooks.knn",
        "hooks.log.every_steps=3",
        "plugins=[kill_hook]",
    ]


def stop_at(step: int, moment: str = "step", number: str = "SIGTERM", rank: int = 0) -> str:
    """A hook that has the run stopped."""
    return (
        f"+hooks.kill={{name: Kill, step: {step}, rank: {rank}, moment: {moment}, victim: rank, "
        f"signal: {number}}}"
    )


def lines(output_dir: Path) -> list[dict[str, Any]]:
    """The metrics without what the clock says."""
    clock = ("images_per_second", "data_wait", "seconds")
    found = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in clock} for line in found]


def checkpoints(output_dir: Path) -> list[int]:
    names = (path.name for path in (output_dir / "checkpoints").iterdir())
    return sorted(int(name.removeprefix("step_")) for name in names)


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


def test_when_to_save_and_what_to_keep(small, tmp_path):
    train(small, tmp_path / "steps", "save.every_epochs=null", "save.every_steps=5", "save.keep=9")
    assert checkpoints(tmp_path / "steps") == [5, 10, 12]
    train(small, tmp_path / "epochs", "save.every_epochs=2", "save.keep=9")
    assert checkpoints(tmp_path / "epochs") == [8, 12]
    train(small, tmp_path / "never", "save.every_epochs=null")
    assert checkpoints(tmp_path / "never") == [12]
    train(small, tmp_path / "minutes", "save.every_epochs=null", "save.every_minutes=1e-9")
    assert checkpoints(tmp_path / "minutes") == [11, 12]
    train(small, tmp_path / "kept", "save.every_steps=1", "save.keep=1", "save.keep_every_epochs=2")
    assert checkpoints(tmp_path / "kept") == [8, 12]


def test_a_line_half_written_is_written_again(small, tmp_path):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(7))
    whole = lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.0}\n{"step": 7, "lo')
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(8))
    assert lines(tmp_path)[: len(whole)] == whole
    assert [line["step"] for line in lines(tmp_path)] == [3, 4, 6, 8]


def test_a_full_disk_keeps_the_checkpoint_before(small, tmp_path, caplog):
    """No file may grow beyond what a checkpoint needs; then the room is there again."""
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(4))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "checkpoints" / "step_00000004" / "shared.pt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(DiskError) as error:
            train(small, tmp_path, "save.every_steps=1", "save.max_failures=3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.exit_code == 5
    assert re.sub(r"[\d.,]+ MiB", "_ MiB", str(error.value)) == (
        f"3 of the latest checkpoints could not be written to {tmp_path / 'checkpoints'} "
        f"(save.max_failures=3; File too large: ulimit -f is {size // 2048}, a checkpoint takes "
        f"_ MiB); {tmp_path / 'checkpoints' / 'step_00000004'} is from before: make room, and the "
        "same command goes on"
    )
    told = [r.getMessage() for r in caplog.records if "could not be written" in r.getMessage()]
    assert [re.sub(r"[\d.,]+ MiB", "_ MiB", line) for line in told] == [
        f"the checkpoint of step {step} could not be written to {tmp_path / 'checkpoints'} "
        f"(File too large: ulimit -f is {size // 2048}, a checkpoint takes _ MiB); the checkpoints "
        "from before stay, and the run goes on"
        for step in (5, 6, 7)
    ]
    assert checkpoints(tmp_path) == [4]
    train(small, tmp_path)
    assert checkpoints(tmp_path) == [8, 12]


def test_weights_that_are_not_finite_are_never_saved(small, tmp_path):
    small = [*small, "~hooks.finite"]
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(4))
    with pytest.raises(DivergedError, match="no longer finite at step 8 ") as error:
        train(small, tmp_path, "optimizer.lr=1e30", "resume.allow_changes=[optimizer.lr]")
    assert error.value.exit_code == 4
    assert checkpoints(tmp_path) == [4]


def test_a_training_that_diverges_says_at_which_images(small, tmp_path):
    with pytest.raises(DivergedError, match=r"not_finite\.json has the images"):
        train(small, tmp_path, "optimizer.lr=1e30")
    told = json.loads((tmp_path / "not_finite.json").read_text())
    assert len(told["images"]) == 32 and all("Shapes[" in name for name in told["images"].values())
    assert told["losses"][0].keys() == {"loss"}


def test_a_state_that_could_not_be_read_again_is_refused_at_once(small, tmp_path):
    with pytest.raises(TypeError, match=r"hooks\.kill\.rank is a float64: .* plain values only"):
        train(small, tmp_path, stop_at(2).replace("victim: rank", "victim: rank, state: numpy"))
    assert not (tmp_path / "checkpoints").exists()


# refusals


def refused(small: list[str], output_dir: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        train(small, output_dir, *overrides)
    return error.value.problems


def test_changes_are_listed_and_can_be_allowed(small, tmp_path):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2))
    before = (tmp_path / "config.yaml").read_text()
    changed = ["optimizer.lr=0.01", "num_epochs=4", "data.num_workers=2", "save.keep=3"]
    first, *differences = refused(small, tmp_path, *changed)
    assert first == (
        f"output_dir={tmp_path}: holds a run with other settings; give this one its own name=..., "
        "remove the directory, or allow it with resume.allow_changes=[optimizer.lr]"
    )
    assert differences == ["optimizer.lr: 0.12 there, 0.01 here"]
    assert (tmp_path / "config.yaml").read_text() == before
    train(small, tmp_path, *changed, "resume.allow_changes=[optimizer]")
    assert checkpoints(tmp_path)[-1] == 16
    rates = [line["lr"] for line in lines(tmp_path) if "lr" in line]
    assert max(rates) <= 0.01


def test_a_run_goes_on_where_it_was_moved_copied_or_is_reached_otherwise(
    small, tmp_path, monkeypatch, photographs
):
    """Its images may have moved too; they are held against what they were."""
    few = ["data=folder", "data.batch_size=4", "loss.queue_length=0", "num_epochs=2"]
    few += [f"data.transform.crops.{c}.size={s}" for c, s in (("large", 32), ("small", 16))]
    few += ["heads.prototypes.num_prototypes=[3]", "data.num_workers=0"]
    few = [*(o for o in small if not o.startswith(("data.", "loss.queue", "num_epochs"))), *few]
    first = tmp_path / "first"
    with pytest.raises(StopRequested):
        train(few, first, stop_at(2), f"data.train.path={photographs}", "name=mine")
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


def test_options_of_the_optimizer_are_those_of_the_config(small, tmp_path):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2))
    change = ["optimizer.momentum=0.5", "resume.allow_changes=[optimizer.momentum]"]
    train(small, tmp_path, *change)
    (group,) = saved(tmp_path, 3)["optimizer"]["param_groups"]
    assert group["momentum"] == 0.5


def test_another_trunk_is_refused_with_what_does_not_fit(small, tmp_path):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2))
    with pytest.raises(CheckpointError, match=r"step_00000002: its model is another: .*trunk\."):
        train(small, tmp_path, "trunk.width=16", "resume.allow_changes=[trunk]")


def make_old(output_dir: Path) -> str:
    """Leave out of a run's config what a later version could have added; returns its path."""
    path = output_dir / "config.yaml"
    saved: Any = OmegaConf.load(path)
    del saved["precision"], saved["launch"]["max_restarts"], saved["sync_batch_norm"]["group_size"]
    OmegaConf.save(saved, path)
    return str(path)


YOUNG_KEYS = "precision=auto, sync_batch_norm.group_size=0, launch.max_restarts=0"


def test_a_run_goes_on_that_is_older_than_some_keys(
    small, tmp_path, photographs, caplog, monkeypatch
):
    monkeypatch.setattr(rules, "cpu_is_fast_in", lambda dtype: True)
    (photographs / "list.txt").write_text("class1/1.jpg\n")
    val = f"data.val={{name: ListFile, path: {photographs}/list.txt, allow_outside: false}}"
    small = [*(o for o in small if not o.startswith("data.val.")), val]
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2))
    path = make_old(tmp_path)
    saved: Any = OmegaConf.load(path)
    del saved["data"]["val"]["allow_outside"]  # an option of a component, with a default
    OmegaConf.save(saved, path)
    assert refused(small, tmp_path, "data.val.allow_outside=true")[1:] == [
        "data.val.allow_outside: False there, True here"
    ]
    caplog.clear()
    assert refused(small, tmp_path, "precision=bfloat16", "seed=1")[1:] == [
        "precision: auto there, bfloat16 here",
        "seed: 0 there, 1 here",
    ]
    caplog.clear()
    train(small, tmp_path)
    told = [m for m in caplog.messages if "older" in m]
    assert told == [f"{path} is older than some keys, taken at their defaults: {YOUNG_KEYS}"]
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


def test_a_corrected_command_takes_the_place_of_one_that_never_began(small, tmp_path, monkeypatch):
    def work(*args, **kwargs):
        raise DataError("nothing can be read")

    with monkeypatch.context() as patched, pytest.raises(DataError):
        patched.setattr(running, "launch", work)
        train(small, tmp_path, "seed=1")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.yaml"}
    train(small, tmp_path, "seed=2")
    assert refused(small, tmp_path, "seed=1")[1:] == ["seed: 2 there, 1 here"]


def test_other_crops_are_told_of_or_refused(small, tmp_path, caplog, monkeypatch):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2))
    before = "compiled kernel" if native_crop.AVAILABLE else "OpenCV"
    monkeypatch.setattr(multicrop, "_implementation", lambda: (opencv_crop.apply_crop, "X", "X"))
    with pytest.raises(CheckpointError, match=f"crops {before} before, X now"):
        train(small, tmp_path, "resume.exact=true")
    train(small, tmp_path)
    assert f"crops {before} before, X now" in caplog.text


@pytest.mark.parametrize("content", ["seed: [0", "", "- 1", "task: 3", "seed: ${nowhere}"])
def test_a_config_that_cannot_be_read_is_one_line(content, small, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    (problem,) = refused(small, tmp_path)
    assert problem.startswith(f"{tmp_path / 'config.yaml'}: the config of a run, cannot be read (")
    assert "\n" not in problem


def test_a_new_run_leaves_a_used_directory_alone(small, tmp_path, monkeypatch):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2), "resume=never")
    (problem,) = refused(small, tmp_path, "resume=never")
    assert problem == (
        f"output_dir={tmp_path}: holds a run, and resume.mode=never leaves it alone; give this one "
        "its own name=..., or go on with resume=auto"
    )
    assert refused(small, tmp_path, "resume.mode=never") == [problem]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # the job itself, requeued
    train(small, tmp_path, "resume=never")


def test_a_run_can_start_from_another(small, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(StopRequested):
        train(small, first, stop_at(6))
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


def test_other_threads_are_told_of_or_refused(small, tmp_path, caplog):
    with pytest.raises(StopRequested):
        train(small, tmp_path, stop_at(2))
    torch.set_num_threads(2)
    try:
        other = ["launch.threads=2"]
        with pytest.raises(CheckpointError, match=r"threads 1 before, 2 now \(resume.exact=false"):
            train(small, tmp_path, *other, "resume.exact=true")
        with pytest.raises(StopRequested):
            train(small, tmp_path, *other, stop_at(4))
    finally:
        torch.set_num_threads(1)
    assert "step_00000002: the result is no longer bit for bit an unbroken run's" in caplog.text


# other numbers of processes


def bank_rows(output_dir: Path, step: int) -> Counter:
    """The rows of all ranks' banks: which image, and what of it."""
    found: Counter = Counter()
    for path in (output_dir / "checkpoints" / f"step_{step:08d}").glob("rank_*.pt"):
        buffers = checkpoint.read(path)["buffers"]
        rows = buffers["bank.embeddings"].transpose(0, 1)
        found.update(zip(buffers["bank.index"].tolist(), map(str, rows.tolist()), strict=True))
    return found


def test_two_processes_one_and_three(tiny, tmp_path):
    """The bank and the labels of DeepCluster-v2 are all there, and the run ends where it would."""
    own = ("config=", "loss.", "hooks.knn", "data.batch", "data.train", "heads.prototypes.num")
    overrides = [
        "config=pretrain/deepcluster_v2/quickstart",
        *(o for o in tiny if not o.startswith(own)),
        "data.batch_size=36",
        "data.train.num_samples=150",  # 4 steps
        "heads.prototypes.num_prototypes=[12, 8]",
        "~hooks.knn",
        "plugins=[kill_hook]",
        "resume.allow_changes=[launch.processes]",
        "save.keep=9",
        f"output_dir={tmp_path}",
    ]
    stopped = tool(*overrides, "launch.processes=2", stop_at(6))
    assert stopped.returncode == 75, stopped.stderr
    before = bank_rows(tmp_path, 6)
    with pytest.raises(StopRequested):
        train(overrides, tmp_path, stop_at(7))
    kept = before & bank_rows(tmp_path, 7)
    assert before.total() == 144 and kept.total() == 144 - 36  # a step has written its batch
    run_tool([*overrides, "launch.processes=3"])
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == list(range(1, 13))
    shared = saved(tmp_path, 3)
    assert shared["world_size"] == 3
    assert (shared["loss"]["assignments"] >= 0).sum(dim=1).tolist() == [144, 144]
    assert len({index for index, _ in bank_rows(tmp_path, 12)}) == 144
