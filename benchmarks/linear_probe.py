"""Price of eight learning rates at once, in prices of one.

    python benchmarks/linear_probe.py [--rounds 5] [--rows 20000] [--dim 2048] [--classes 10 1000]

One epoch of the cached linear evaluation on features of 16 bits that are mapped from a file: the
fit of all rates alone, and with the second fit that the chosen rate gets on all training images.
CPU time of one thread, rounds interleaved in one process, so that a busy machine slows all alike.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, on import

import argparse
import statistics
import tempfile
from pathlib import Path
from time import process_time

import numpy as np
import torch

from ssl_platform.ops.linear_probe import Rows, Standard, fit_sgd

RATES = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


def some_rows(folder: Path, num_rows: int, dim: int, num_classes: int) -> Rows:
    path = folder / f"{num_classes}.npy"
    np.save(path, np.random.default_rng(0).standard_normal((num_rows, dim)).astype(np.float16))
    features = torch.from_numpy(np.load(path, mmap_mode="c"))
    labels, positions = torch.arange(num_rows) % num_classes, torch.arange(num_rows)
    standard = Standard.of(features, positions)
    return Rows(features, labels, positions, standard, torch.device("cpu"))


def seconds(rows: Rows, num_classes: int, rates: list[float]) -> float:
    start = process_time()
    fit_sgd(
        rows, num_classes, learning_rates=rates, weight_decays=[0.0],
        num_epochs=1, batch_size=1024, momentum=0.9, seed=0,
    )  # fmt: skip
    return process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for num_classes in options.classes:
            rows = some_rows(Path(folder), options.rows, options.dim, num_classes)
            rounds = [
                (seconds(rows, num_classes, RATES), seconds(rows, num_classes, RATES[-1:]))
                for _ in range(options.rounds)
            ]
            alone = [eight / one for eight, one in rounds]
            with_second_fit = [(eight + one) / (one + one) for eight, one in rounds]
            print(f"{num_classes:5} classes: {told(alone)}; with the second fit "
                  f"{told(with_second_fit)}", flush=True)  # fmt: skip


def told(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
