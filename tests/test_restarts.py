"""Trainings of two processes that lose one or are asked to stop end as an unbroken one."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from forked import TOOL, tool
from tiny_runs import assert_equal, lines, saved

PLUGIN = '''
import os, signal, threading
from ssl_platform import distributed
from ssl_platform.engine.run import Events
from ssl_platform.registry import HOOKS

@HOOKS.register()
class FailOnce(Events):
    """In the first attempt, rank 1 fails after ``step``."""
    def __init__(self, *, step: int, way: str):
        self.step, self.way = step, way

    def on_step_end(self, run):
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first and distributed.rank() == 1 and run.step == self.step:
            if self.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "preempt":
                heard, save = threading.Event(), signal.getsignal(signal.SIGUSR1)
                signal.signal(signal.SIGUSR1, lambda *signal: (save(*signal), heard.set()))
                os.kill(os.getppid(), signal.SIGUSR1)
                heard.wait()
'''


def command(folder: Path, name: str, way: str, *overrides: str) -> list[str]:
    """A training of 8 steps in 2 epochs; something happens after step 6."""
    (folder / "fail_once.py").write_text(PLUGIN)
    return [
        *(*TINY, "num_epochs=2", "~hooks.knn", "save.every_steps=1", f"name={name}"),
        *("loss.queue_length=64", "loss.queue_start_epoch=0", "launch.processes=2"),
        *("plugins=[fail_once]", f"+hooks.fail={{name: FailOnce, step: 6, way: {way}}}"),
        *overrides,
    ]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    done = tool(*command(folder, "run", "none"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "run"


def assert_same_end(output_dir: Path, unbroken: Path) -> None:
    for part in ("shared.pt", "rank_0.pt", "rank_1.pt"):
        assert_equal(saved(unbroken, 2, part), saved(output_dir, 2, part))
    assert steps(output_dir) == list(range(1, 9))


def steps(output_dir: Path) -> list[int]:
    return [line["step"] for line in lines(output_dir) if "loss" in line]


def test_a_rank_that_dies_restarts_the_training(tmp_path, unbroken):
    done = tool(*command(tmp_path, "run", "kill", "launch.max_restarts=1"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rank 1 was killed by SIGKILL after step 6 (out of" in done.stderr
    assert "restart 1 of 1" in done.stderr.splitlines()
    assert_same_end(tmp_path / "runs" / "run", unbroken)


def test_torchrun_restarts_the_training(tmp_path, unbroken):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    training = [str(TOOL), *command(tmp_path, "run", "kill")]
    done = subprocess.run(
        [sys.executable, *torchrun, "--max-restarts=1", *training],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_end(tmp_path / "runs" / "run", unbroken)


def test_a_preempted_training_saves_leaves_with_75_and_goes_on(tmp_path, unbroken):
    arguments = command(tmp_path, "run", "preempt")
    output_dir = tmp_path / "runs" / "run"
    done = tool(*arguments, cwd=tmp_path)
    assert done.returncode == 75, done.stderr
    assert "the same command goes on from the latest checkpoint" in done.stderr.splitlines()[-1]
    assert steps(output_dir) == list(range(1, 7))
    assert tool(*arguments, cwd=tmp_path).returncode == 0
    assert_same_end(output_dir, unbroken)
