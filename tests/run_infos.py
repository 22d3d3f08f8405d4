"""What loggers are told of a run, for tests of a logger alone."""

from pathlib import Path
from typing import Any

from ssl_platform.loggers import RunInfo


def info(output_dir: Path, **others: Any) -> RunInfo:
    """A run of 3 epochs of 4 steps, at its beginning."""
    values: dict[str, Any] = {"name": "mine", "config": {}, "step": 0, "num_epochs": 3}
    values |= {"steps_per_epoch": 4, "output_dir": output_dir, **others}
    return RunInfo(**{"position": values["step"], **values})
