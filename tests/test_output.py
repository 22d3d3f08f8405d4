"""Standard streams that are closed, full or not read: nothing ends for them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import QUICKSTART, TOOL

from ssl_platform.engine.stopping import StopSignals, stop_error

# what a run says at its end, when all is saved, and what C code and a file of its own write
SPEAKS = f"""
import os, sys
from contextlib import suppress
sys.path.insert(0, {str(TOOL.parents[1])!r})
from ssl_platform import cli

def work(arguments, answer):
    with open("results", "wb", buffering=0) as file:
        with suppress(OSError):  # C code that does not ask
            os.write(2, b"from C")
        print("the end")
        print("a line", file=sys.stderr)
        file.write(b"saved")
    return None

cli._answered_or_composed = work
sys.exit(cli.main([]))
"""


def spoken(shell: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of a command, which ``shell`` starts as "$@"."""
    command = [sys.executable, *(arguments or ["-c", SPEAKS])]
    done = subprocess.run(
        ["bash", "-c", shell, "-", *command], cwd=folder, capture_output=True, text=True
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("shell", "told"),
    [
        ('exec "$@" <&- >&- 2>&-', ""),
        ('exec "$@" >&-', "from Ca line\n"),
        ('exec "$@" 2>&-', ""),
        ('"$@" | true; exit ${PIPESTATUS[0]}', "from Ca line\n"),
        ('"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', ""),
        (
            'exec "$@" >/dev/full',
            "from Ca line\nwarning: standard output cannot be written (No space left on device)\n",
        ),
        ('exec "$@" >/dev/full 2>&1', ""),
    ],
)
def test_a_run_whose_output_nobody_has_is_done_all_the_same(shell, told, tmp_path):
    assert spoken(shell, tmp_path) == (0, told)
    assert (tmp_path / "results").read_bytes() == b"saved"


def test_a_command_that_only_prints_has_failed_where_it_cannot(tmp_path):
    arguments = [str(TOOL), QUICKSTART, "--cfg", "job"]
    assert spoken('exec "$@" >/dev/full', tmp_path, *arguments) == (
        1,
        "error: standard output cannot be written (No space left on device)\n",
    )


def test_a_terminal_that_is_closed_stops_a_run_as_a_signal_does():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGHUP
    assert stop_error(signal.SIGHUP, 7).exit_code == 129


def test_ctrl_c_is_answered_at_once_and_a_second_one_ends(capfd):
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        said = capfd.readouterr().err
        assert said == "\nSIGINT: stopping after this step; again to end now\n"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_nohup_is_heeded():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("tool", [["zoo.py", "list"], ["results.py", "--help"]])
def test_the_other_tools_keep_streams_that_are_closed_or_full(tool, tmp_path):
    arguments = [str(TOOL.with_name(tool[0])), *tool[1:]]
    assert spoken('exec "$@" <&- >&- 2>&-', tmp_path, *arguments) == (0, "")
    assert spoken('"$@" | true; exit ${PIPESTATUS[0]}', tmp_path, *arguments) == (0, "")
    assert spoken('exec "$@" >/dev/full', tmp_path, *arguments) == (
        1,
        "error: standard output cannot be written (No space left on device)\n",
    )
