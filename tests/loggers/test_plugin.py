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
STOPPED_AFTER = 6  # of 12 steps; the checkpoint before is of step 4
SHOWN = re.compile(r"^epoch \d+(/3 step \d+/12)?: [\w/]+ -?[\d.].*$", re.M)


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
    return caplog.messages


@pytest.mark.parametrize("processes", [1, 2])
def test_it_hears_every_figure_of_the_console(processes, tmp_path, caplog):
    code = re.search(r"<!-- file: csv_logger.py -->\n```python\n(.*?)```", GUIDE.read_text(), re.S)
    assert len(code[1].strip().splitlines()) <= 30
    (tmp_path / "csv_logger.py").write_text(code[1])
    command = [*without(TINY, "hooks.knn"), "~hooks.knn", "output_dir=run", "save.every_epochs=1"]
    command += [f"launch.processes={processes}", "plugins=[csv_logger]", "+loggers.csv={name: CSV}"]
    done = tool(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = [match[0] for match in SHOWN.finditer(done.stderr)]
    assert len(shown) == 12 + 3
    assert shown_again(tmp_path / "run/figures.csv", tmp_path, caplog) == shown
