"""The logger of the guide hears all that the console shows, over a resume and in two processes."""

import csv
import re
from itertools import groupby
from pathlib import Path

import pytest
from conftest import TINY
from forked import tool
from run_infos import info
from tiny_runs import without

from ssl_platform.loggers.console import Console

GUIDE = Path(__file__).parents[2] / "docs/extending.md"
TESTS = str(Path(__file__).parents[1])
KILL = "+hooks.kill={name: Kill, step: 6, rank: 0, moment: step, victim: all, signal: SIGKILL}"
SHOWN = re.compile(r"^(epoch \d+(?:/3 step \d+/12)?: \w+ -?[\d.].*?)(?:, ETA .*)?$", re.M)


def shown_again(figures: Path, tmp_path: Path, caplog) -> list[str]:
    """The lines of the console, made of nothing but what the other logger has heard."""
    caplog.set_level("INFO")
    console = Console()
    console.start(info(tmp_path))
    with figures.open() as file:
        rows = list(csv.reader(file))
    for (step, epoch, _), line in groupby(rows, lambda row: (int(row[0]), int(row[1]), 0)):
        parts: list[dict[str, float]] = [{}]
        for *_, name, value in line:
            parts[-1][name] = float(value)
            if name == "seconds":  # the last figure of each call
                parts.append({})
        for part in parts[:-1]:
            console.figures(step, epoch, part)
    return SHOWN.findall("\n".join(caplog.messages))


@pytest.mark.parametrize("processes", [1, 2])
def test_it_hears_every_figure_of_the_console(processes, tmp_path, caplog):
    """The run of one process is killed after step 6, and goes on from step 4."""
    code = re.search(r"<!-- file: csv_logger.py -->\n```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(code[1].strip().splitlines()) <= 30
    (tmp_path / "csv_logger.py").write_text(code[1])
    command = [
        *without(TINY, "hooks.knn"),
        "~hooks.knn",
        "output_dir=run",
        "+loggers.csv={name: CSV}",
    ]
    command += [f"launch.processes={processes}", "plugins=[csv_logger,kill_hook]"]

    def shown(*more: str) -> list[str]:
        done = tool(*command, *more, cwd=tmp_path, env={"PYTHONPATH": TESTS})
        assert bool(more) == bool(done.returncode), done.stderr
        return SHOWN.findall(done.stderr)

    before = [] if processes == 2 else shown(KILL)[: 4 + 1]
    lines = before + shown()
    assert len(lines) == 12 + 3
    assert shown_again(tmp_path / "run/figures.csv", tmp_path, caplog) == lines
