"""CPU time until the command line answers, and until a training takes its first step.

    python benchmarks/start.py [--rounds 5]

A training is compared with a process that only imports torch, plus the construction of its model:
ResNet-50 with SwAV's head, in the layout that it is trained in. Python keeps the modules compiled.
"""

from ratios import Row, rounds_of, run_alone  # isort: skip (threads)

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = "tools/run_distributed.py"
CONFIG = "config=pretrain/swav/quickstart"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
ANSWERS = {  # with their exit codes
    "--help": (["--help"], 0),
    "--cfg job": ([CONFIG, "--cfg", "job"], 0),
    "wrong name of a config": (["config=pretrain/swav/quikstart"], 2),
}
TRAINING = f"""
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.config import compose
cfg = compose(["{CONFIG}", "trunk=resnet50", "data.train.num_samples=256", "loss.queue_length=0"])
builder = Builder(options_of(cfg))
"""
RUN = TRAINING + "builder.run()"
MODEL = (
    TRAINING
    + """
from time import process_time
start = process_time()
builder.transform, builder.model
print(process_time() - start)
"""
)


def python(arguments: list[str], *, exit_code: int = 0) -> bytes:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=False
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def model_seconds() -> float:
    return float(python(["-c", MODEL]))


def rows(rounds: int) -> Iterator[Row]:
    contenders = {
        name: partial(python, [TOOL, *arguments], exit_code=exit_code)
        for name, (arguments, exit_code) in ANSWERS.items()
    }
    contenders["torch"] = partial(python, ["-c", "import torch"])
    contenders["training"] = partial(python, ["-c", RUN])
    seconds = rounds_of(contenders, rounds, clock=children_seconds)
    for name in ANSWERS:
        yield Row(name, seconds[name], 0.45, "s")
    ratios = [
        training / (torch + model_seconds())
        for training, torch in zip(seconds["training"], seconds["torch"], strict=True)
    ]
    yield Row("start of a training, torch and the model", ratios, 1.3, "")


if __name__ == "__main__":
    run_alone(__doc__, rows, 5)
