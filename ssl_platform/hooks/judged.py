"""The verdict among the results of a run, and the command that goes on from there."""

import os
import re
import shlex
from pathlib import Path

from ssl_platform.engine.run import Run
from ssl_platform.evaluation.verdict import judge

TOOL = Path("tools/run_distributed.py")
PLAIN = re.compile(
    r"[\w./@%+-]+", re.ASCII
)  # a value that neither Hydra nor a shell reads otherwise


def judged(run: Run) -> None:
    """Put the verdict on a pretraining into ``run.results``, unless it is there.

    It is called when every hook that measures has been heard. A training of a classifier has its
    scores instead.
    """
    if "evaluation" not in run.results and "verdict" not in run.results:
        verdict = judge(run.results)._asdict()
        run.results["verdict"] = {**verdict, "next": next_command(run.output_dir)}


def next_command(folder: Path) -> str:
    """What a user types to look at a run, from the present working directory."""
    program = f"python {TOOL}" if TOOL.is_file() else "python -m ssl_platform"
    inside = os.path.relpath(folder)
    path = str(folder) if inside.startswith("..") else inside
    return f"{program} config=analysis/clusters {shlex.quote(f'checkpoint={_value(path)}')}"


def _value(text: str) -> str:
    """A value of an override in Hydra's grammar."""
    if PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)  # a backslash counts only before a quote
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
