import subprocess
import sys
from pathlib import Path


def test_killed_runs_end_as_unbroken_ones():
    """Two kills; all of them are `make faults`."""
    script = Path(__file__).parent / "faults.py"
    done = subprocess.run([sys.executable, str(script), "--short"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].startswith("2 of 2 kills: ")
