"""What is written when something is in the way."""

import json
import logging
import resource
from pathlib import Path

import pytest

from ssl_platform.hooks.log import _JsonLines, _TensorBoard


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


def test_without_tensorboards_folder_the_run_goes_on(tmp_path, caplog):
    folder = tmp_path / "tensorboard"
    folder.write_text("a file is in the way")
    writer = _TensorBoard(folder, step=0)
    writer.write({"step": 1, "loss": 1.0})
    writer.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage().startswith(f"{folder} cannot")
