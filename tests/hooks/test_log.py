"""What is written when something is in the way."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny_runs import train

from ssl_platform.hooks.log import Log


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def lose_folder(folder: Path, monkeypatch) -> str:
    shutil.rmtree(folder)
    return "No such file or directory"


def fill_disk(folder: Path, monkeypatch) -> str:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", write)
    return "No space left on device"


@pytest.mark.parametrize("fault", [lose_folder, fill_disk])
def test_tensorboard_failing_in_mid_run_is_told_once(
    fault, tiny, tmp_path, monkeypatch, caplog, capfd
):
    """The hook fails after step 5 of 12."""
    why = []

    def on_step_end(self, run):
        original(self, run)
        if run.step == 5:
            why.append(fault(tmp_path / "tensorboard", monkeypatch))

    original = Log.on_step_end
    monkeypatch.setattr(Log, "on_step_end", on_step_end)
    train(tiny, tmp_path, "~hooks.knn", "loggers.tensorboard.enabled=true")
    told = [m for m in caplog.messages if "cannot be written" in m]
    assert told == [
        f"{tmp_path / 'tensorboard'} cannot be written ({why[0]}): TensorBoard gets no more"
    ]
    assert steps(tmp_path / "metrics.jsonl")[-1] == 12
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_run_can_do_without_is_done_without(tiny, tmp_path, caplog):
    for name in ("crops.png", "summary.json", "baselines.json"):
        (tmp_path / name).mkdir()
    (tmp_path / "tensorboard").write_text("a file is in the way")
    train(tiny, tmp_path, "num_epochs=2", "loggers.tensorboard.enabled=true")
    told = [m.partition(":")[0] for m in caplog.messages if "cannot be written" in m]
    assert told == [
        f"{tmp_path / 'baselines.json'} cannot be written (Is a directory)",
        f"{tmp_path / 'tensorboard'} cannot be written (Not a directory)",
        f"{tmp_path / 'crops.png'} cannot be written (Is a directory)",
        f"{tmp_path / 'summary.json'} cannot be written (Is a directory)",
    ]
