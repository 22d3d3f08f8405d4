"""The command lines of the whole way: pretrain, evaluate, find clusters, show."""

import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig

from ssl_platform.config.options import DataOptions, TrainOptions, options_of
from ssl_platform.config.shipped import PACKAGE
from ssl_platform.data.sets.list_file import ListFile
from ssl_platform.engine.build import open_dataset
from ssl_platform.reports.typed import value
from ssl_platform.start.recipe import in_yaml

TOOL = PACKAGE.parent / "tools" / "run_distributed.py"
# with what is measured for comparison: of a linear classifier it would take most of the time
EVALUATIONS = {
    "knn": ["config=benchmark/knn/folder"],
    "linear": ["config=benchmark/linear/cached/folder", "baselines=false"],
}


class Stage(NamedTuple):
    """A command of the way.

    Attributes:
        what: it is, for people.
        arguments: of the platform's command line.
        folder: that its results lie in.
    """

    what: str
    arguments: list[str]
    folder: Path

    @property
    def shown(self) -> str:
        """As a user types it."""
        return shlex.join([*_program("python"), *self.arguments])

    def run(self) -> int:
        """Run it as a process of its own; returns its exit code.

        What stops this process stops that one first: it saves before it ends.
        """
        process = subprocess.Popen([*_program(sys.executable), *self.arguments])
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                with suppress(KeyboardInterrupt):  # the terminal sends it to both
                    return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def _program(python: str) -> list[str]:
    """The platform's command line: of this checkout, or installed."""
    if not TOOL.is_file():
        return [python, "-m", "ssl_platform"]
    near = TOOL.relative_to(Path.cwd()) if TOOL.is_relative_to(Path.cwd()) else TOOL
    return [python, str(near)]


def stages(file: Path, cfg: DictConfig) -> list[Stage]:
    """What to run, in order.

    Args:
        file: of the recipe.
        cfg: its checked config.
    """
    options = options_of(cfg)
    assert isinstance(options, TrainOptions)
    run = Path(options.output_dir)
    found = [Stage("pretrain", [f"config={file}"], run)]
    for name, words in EVALUATIONS.items() if _is_labelled(options.data) else ():
        arguments = [*words, *_evaluation(options, run / name)]
        found.append(Stage(f"evaluate: {name}", arguments, run / name))
    arguments = ["config=analysis/clusters", f"checkpoint={value(str(run))}"]
    found.append(Stage("clusters", arguments, run / "clusters"))
    arguments = ["config=analysis/report", f"checkpoint={value(str(run))}"]
    return [*found, Stage("report", arguments, run)]


def _is_labelled(data: DataOptions) -> bool:
    """Whether the training images have classes to tell apart."""
    labels = open_dataset(data.train, data).labels
    return labels is not None and len(np.unique(labels[labels >= 0])) >= 2


def _evaluation(options: TrainOptions, folder: Path) -> list[str]:
    data = options.data
    transform, train = data.eval_transform, data.train
    is_list = train["name"] == ListFile.__name__
    return [
        f"checkpoint={value(options.output_dir)}",
        *(["data=labelled_lists"] if is_list else []),
        f"data.train.path={value(train['path'])}",
        f"data.val={'null' if data.val is None else in_yaml(dict(data.val))}",
        "data.normalize=auto",
        f"data.eval_transform.resize={transform['resize']}",
        f"data.eval_transform.size={transform['size']}",
        f"data.num_workers={data.num_workers}",
        f"data.max_bad_fraction={data.max_bad_fraction}",
        f"launch.threads={in_yaml(options.launch.threads)}",
        f"output_dir={value(str(folder))}",
    ]
