"""How long a checkpoint of SwAV with a ResNet-50 holds the training up.

    python benchmarks/checkpoint.py [--rounds 8] [--folder .]

A synchronous save, as a whole, beside what the training waits for in an asynchronous one: the copy,
and later the commit. Rounds are interleaved, so that a busy machine slows both alike.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep

import torch

from ssl_platform.config import compose
from ssl_platform.config.options import SaveOptions, options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.run import Run
from ssl_platform.engine.saver import Saver

RESNET50_SWAV = [
    "config=pretrain/swav/quickstart",
    "trunk=resnet50",
    "heads.prototypes={hidden_dim: 2048, out_dim: 128, num_prototypes: [3000]}",
    "data.train.num_samples=7680",
    "data.num_workers=0",
    "loss.queue_length=3840",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--folder", default=".", help="on the disk that is written to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run, save = a_run(folder)
        held = Saver(Path(folder) / "held", replace(save, asynchronous=False))
        free = Saver(Path(folder) / "free", replace(save, asynchronous=True))
        for saver in (held, free):  # the first time memory is set up
            whole_save(run, saver)
        pairs = [(whole_save(run, held), waiting(run, free)) for _ in range(options.rounds)]
    ratios = [waited / whole for whole, waited in pairs]
    whole, waited = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"synchronous {whole:.3f} s, asynchronous {waited:.3f} s: {waited / whole:.1%}")
    print(f"median of the rounds' ratios {statistics.median(ratios):.1%}")


def a_run(folder: str) -> tuple[Run, SaveOptions]:
    """After a step, so that there is momentum."""
    options = options_of(compose([*RESNET50_SWAV, f"output_dir={folder}"]))
    run = Builder(options).run()
    for parameter in run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    run.hooks = {}  # they would want a training around them
    return run, options.save


def whole_save(run: Run, saver: Saver) -> float:
    run.step += 1
    start = perf_counter()
    saver.save(run)
    saver.finish()
    return perf_counter() - start


def waiting(run: Run, saver: Saver) -> float:
    """Seconds that the run is held up by."""
    run.step += 1
    start = perf_counter()
    saver.save(run)
    waited = perf_counter() - start
    while saver.num_written < saver.num_begun:
        sleep(0.01)  # steps of the training
    start = perf_counter()
    saver.finish()
    return waited + perf_counter() - start


if __name__ == "__main__":
    main()
