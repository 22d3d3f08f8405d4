"""Two launchers in one run directory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_platform.errors import ConfigError
from ssl_platform.job.directory import LOCK_FILE, locked

HOLD = """
import os, sys, time
from pathlib import Path
from ssl_platform.job.directory import locked
with locked(Path(sys.argv[1])):
    if os.fork():
        print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, with a child, that holds the lock of ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def refusal(directory: Path) -> str:
    with pytest.raises(ConfigError) as caught, locked(directory):
        pass
    (problem,) = caught.value.problems
    return problem


def test_the_second_is_refused_until_the_first_is_gone(tmp_path, holder):
    host = os.uname().nodename
    expected = f"output_dir={tmp_path}: process {holder.pid} on {host} works in it"
    assert refusal(tmp_path) == refusal(tmp_path) == expected
    holder.kill()  # its child, as a data worker may, lives on
    holder.wait()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == str(os.getpid())
    assert (tmp_path / LOCK_FILE).read_text() == ""


@pytest.mark.parametrize("text", ["", "{", '{"pid": "1", "host": "HERE"}'])
def test_what_a_dead_process_left_is_taken_over(tmp_path, text):
    (tmp_path / LOCK_FILE).write_text(text.replace("HERE", os.uname().nodename))
    with locked(tmp_path):
        pass


def test_another_machine_is_believed_unless_it_was_this_job(tmp_path, monkeypatch):
    """On a file system whose locks do not reach other machines."""
    owner = {"pid": "12", "host": "node7", "job": "55"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(owner))
    assert refusal(tmp_path) == (
        f"output_dir={tmp_path}: process 12 on node7 works in it; if it no longer runs, "
        f"remove {tmp_path / LOCK_FILE}"
    )
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == owner
    monkeypatch.setenv("SLURM_JOB_ID", "55")
    with locked(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "run") == (
        f"output_dir={tmp_path / 'file' / 'run'}: cannot be written (Not a directory)"
    )
