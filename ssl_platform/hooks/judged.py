"""The verdict among the results of a run, and the command that goes on from there."""

from pathlib import Path

from ssl_platform.engine.run import Run
from ssl_platform.evaluation.verdict import Kind, judge
from ssl_platform.reports.typed import command, from_here


def judged(run: Run) -> None:
    """Put the verdict on a pretraining into ``run.results``, unless it is there.

    It is called when every hook that measures has been heard. A training of a classifier has its
    scores instead.
    """
    if "evaluation" not in run.results and "verdict" not in run.results:
        verdict = judge(run.results)
        typed = next_command(verdict.kind, run.output_dir)
        run.results["verdict"] = {**verdict._asdict(), "next": typed}


def next_command(kind: Kind, folder: Path) -> str:
    """What a user types to look at a run, from the present working directory.

    That is the clusters of what has learned, and else the page of curves and signs.
    """
    config = "analysis/clusters" if kind.startswith("learned") else "analysis/report"
    return command(config=config, checkpoint=from_here(folder))
