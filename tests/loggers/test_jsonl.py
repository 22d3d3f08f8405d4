"""metrics.jsonl: what is in it after a resume, and when the disk is full or gone."""

import json
import resource
import shutil
from pathlib import Path

import pytest
from run_infos import info

from ssl_platform.errors import ConfigError
from ssl_platform.loggers.jsonl import JSONLines


def started(path: Path, step: int = 0) -> JSONLines:
    logger = JSONLines()
    logger.start(info(path.parent, step=step))
    return logger


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("tail", ["", '{"step": 3', '{"step": 3}', "\0\0\0\n", '"word"\n', "{}\n"])
def test_a_resumed_file_has_whole_lines_up_to_the_step(tail, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 4)) + tail)
    file = started(path, step=3)
    file.figures(4, 1, {})
    assert steps(path) == [1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_starts_a_new_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    started(path).figures(1, 0, {"loss": 2.0, "seconds": 0.5})
    assert json.loads(path.read_text()) == {"step": 1, "epoch": 0, "loss": 2.0, "seconds": 0.5}


def test_lines_wait_for_room_on_the_disk(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    file = started(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, limits[1]))
    try:
        for step in range(5):
            file.figures(step, 0, {"loss": 0.123456789})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.figures(5, 1, {})
    assert steps(path) == list(range(6))
    assert caplog.messages == [f"{path} cannot be written for now (File too large)"]


def test_lines_that_never_found_room_are_counted(tmp_path, caplog):
    path = tmp_path / "gone" / "metrics.jsonl"
    path.parent.mkdir()
    file = started(path)
    shutil.rmtree(path.parent)
    file.figures(1, 0, {})
    file.figures(2, 0, {})
    file.sync()
    file.close({})
    assert caplog.messages == [
        f"{path} cannot be written for now (No such file or directory)",
        f"{path}: its last 2 lines could not be written and are lost",
    ]


def test_lines_that_wait_are_written_before_a_checkpoint(tmp_path):
    path = tmp_path / "gone" / "metrics.jsonl"
    path.parent.mkdir()
    file = started(path)
    shutil.rmtree(path.parent)
    file.figures(1, 0, {})
    path.parent.mkdir()
    file.sync()
    assert steps(path) == [1]


def test_a_file_that_cannot_be_started_is_one_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.mkdir()
    with pytest.raises(ConfigError) as error:
        started(path)
    assert error.value.problems == [f"{path}: cannot be rewritten (Is a directory)"]
