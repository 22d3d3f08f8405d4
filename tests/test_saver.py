"""Saves in a thread. That resumed runs equal unbroken ones is shown in test_resume.py."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, threading
from pathlib import Path
import torch
from ssl_platform.saver import _Writing

_Writing(
    Path(sys.argv[1]), {"rank_0.pt": {"x": torch.ones(9)}}, {"step": 1},
    make_room=threading.main_thread().join, device=torch.device("cpu"),
).start()
raise SystemExit(3)
"""


def test_an_error_elsewhere_does_not_cut_off_a_write(tmp_path):
    """A thread that Python ends for it, while it is in torch, brings the process down."""
    folder = tmp_path / "epoch"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert (folder / "rank_0.pt").is_file()
