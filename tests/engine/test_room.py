"""Room on the disk: asked for before the first step, for as much as a checkpoint will take."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import tool
from tiny_runs import QUEUE, train, without

from ssl_platform.engine.saver import SPARE_ROOM
from ssl_platform.errors import ConfigError

FULL_DISK = """
import shutil
from types import SimpleNamespace

shutil.disk_usage = lambda path: SimpleNamespace(total=2**30, free=2**18)
"""


@pytest.fixture
def short(tiny) -> list[str]:
    return [*without(tiny, "hooks.knn"), *QUEUE, "~hooks.knn"]


def last_checkpoint(output_dir: Path) -> tuple[int, int]:
    """Its step, and the bytes of its files."""
    folder = max((output_dir / "checkpoints").iterdir())
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return int(folder.name.removeprefix("step_")), sum(file["bytes"] for file in files.values())


def test_the_room_is_asked_for_that_a_checkpoint_takes(short, tmp_path, monkeypatch):
    """Of AdamW, whose state has two tensors for each parameter."""
    short = [*short, "optimizer=adamw", "~optimizer.trust_coefficient"]
    train(short, tmp_path / "measured", "num_epochs=2")
    _, size = last_checkpoint(tmp_path / "measured")
    usage = SimpleNamespace(total=10**12, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    def start(name: str, room: float, *more: str) -> None:
        usage.free = int(SPARE_ROOM * room * size)
        train(short, tmp_path / name, *more)

    with pytest.raises(ConfigError) as error:
        start("new", 0.8, "num_epochs=2")
    assert error.value.problems[0].startswith(f"output_dir={tmp_path / 'new'}: ")
    assert not (tmp_path / "new" / "checkpoints").exists()
    start("new", 1.05, "num_epochs=2")

    longer = ("num_epochs=3", "resume.allow_changes=[num_epochs]")
    with pytest.raises(ConfigError):
        start("new", 0.8, *longer)
    start("new", 1.05, *longer)
    assert last_checkpoint(tmp_path / "new")[0] == 12
    start("new", 0.0, *longer)  # a finished run only reports
    usage.total = 0  # a file system that does not say its size
    start("unknown", 0.0)


def test_all_processes_leave_with_one_line(short, tmp_path):
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    done = tool(*short, "launch.processes=2", "plugins=[full_disk]", "name=run", cwd=tmp_path)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: output_dir=runs/run: 0.2 MiB are free there, a checkpoint needs 0.6 MiB; have 0.9 "
        "MiB free before the start, or choose a directory on another disk"
    ]
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (tmp_path / "runs" / "run").iterdir()) == [".lock", "config.yaml"]
