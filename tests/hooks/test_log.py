"""What is written when something is in the way."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import train

from ssl_platform.errors import ConfigError
from ssl_platform.hooks.files import EventFile
from ssl_platform.hooks.log import Log, _JsonLines, _TensorBoard


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("tail", ["", '{"step": 3', '{"step": 3}', "\0\0\0\n", '"word"\n', "{}\n"])
def test_a_resumed_file_has_whole_lines_up_to_the_step(tail, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 4)) + tail)
    file = _JsonLines(path, step=3)
    file.write({"step": 4})
    assert steps(path) == [1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_starts_a_new_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    _JsonLines(path, step=0).write({"step": 1, "loss": 2.0})
    assert json.loads(path.read_text()) == {"step": 1, "loss": 2.0}


def test_lines_wait_for_room_on_the_disk(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    file = _JsonLines(path, step=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, limits[1]))
    try:
        for step in range(5):
            file.write({"step": step, "text": "x" * 10})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.write({"step": 5})
    assert steps(path) == list(range(6))
    assert caplog.messages == [f"{path} cannot be written for now (File too large)"]


def test_lines_that_never_found_room_are_counted(tmp_path, caplog):
    path = tmp_path / "gone" / "metrics.jsonl"
    path.parent.mkdir()
    file = _JsonLines(path, step=0)
    shutil.rmtree(path.parent)
    file.write({"step": 1})
    file.write({"step": 2})
    file.sync()
    file.close()
    assert caplog.messages == [
        f"{path} cannot be written for now (No such file or directory)",
        f"{path}: its last 2 lines could not be written and are lost",
    ]


def test_lines_that_wait_are_written_before_a_checkpoint(tmp_path):
    path = tmp_path / "gone" / "metrics.jsonl"
    path.parent.mkdir()
    file = _JsonLines(path, step=0)
    shutil.rmtree(path.parent)
    file.write({"step": 1})
    path.parent.mkdir()
    file.sync()
    assert steps(path) == [1]


def test_a_file_that_cannot_be_started_is_one_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.mkdir()
    with pytest.raises(ConfigError) as error:
        _JsonLines(path, step=0)
    assert error.value.problems == [f"{path}: cannot be rewritten (Is a directory)"]


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
    train(tiny, tmp_path, "num_epochs=2")
    told = [m.partition(":")[0] for m in caplog.messages if "cannot be written" in m]
    assert told == [
        f"{tmp_path / 'baselines.json'} cannot be written (Is a directory)",
        f"{tmp_path / 'crops.png'} cannot be written (Is a directory)",
        f"{tmp_path / 'tensorboard'} cannot be written (Not a directory)",
        f"{tmp_path / 'summary.json'} cannot be written (Is a directory)",
    ]


def test_tensorboard_reads_what_is_written_and_forgets_what_is_done_again(tmp_path):
    for first_step, numbers in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = _TensorBoard(tmp_path, step=first_step)
        for step in numbers:
            writer.write(
                {"step": step, "epoch": 0, "loss": 10.0 * first_step + step, "health/x": 0.5}
            )
    found = EventAccumulator(str(tmp_path)).Reload()
    assert found.Tags()["scalars"] == ["Training/Loss", "health/x"]
    losses = [(event.step, event.value) for event in found.Scalars("Training/Loss")]
    assert losses == [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0)]


def test_tensorboard_shows_a_picture(tmp_path):
    EventFile(tmp_path).add_picture(1, "Samples/crops", b"a PNG", height=2, width=3)
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("Samples/crops")
    assert (event.step, event.encoded_image_string) == (1, b"a PNG")
    assert (event.height, event.width) == (2, 3)
