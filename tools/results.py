"""Lay out the results of evaluations: ``python tools/results.py [FOLDER...]``, by default runs/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from ssl_platform.cli import answered, check_working_directory
from ssl_platform.console import legible, show
from ssl_platform.evaluation.results_table import results_table


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code (0, or that of the `PlatformError`)."""
    with answered() as answer:
        _main(arguments)
    return answer.exit_code


def _main(arguments: list[str]) -> None:
    if {"-h", "--help"} & {*arguments}:
        show(f"{__doc__}")
        return
    check_working_directory()
    for line in results_table(map(Path, arguments or ["runs"])):
        show(legible(line))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
