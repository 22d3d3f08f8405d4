"""Lay out the results of evaluations: ``python tools/results.py [FOLDER...]``, by default runs/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from ssl_platform.errors import PlatformError
from ssl_platform.results_table import results_table


def main(folders: list[str]) -> int:
    try:
        print("\n".join(results_table(map(Path, folders or ["runs"]))))
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
