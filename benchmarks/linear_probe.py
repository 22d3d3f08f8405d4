"""Price of eight learning rates at once, in prices of one.

    python benchmarks/linear_probe.py [--rounds 5] [--rows 20000] [--dim 2048] [--classes 10 1000]

One epoch of the cached linear evaluation on features of 16 bits that are mapped from a file: the
fit of all rates alone, and with the second fit that the chosen rate gets on all training images.
CPU time of one thread.
"""

from ratios import Row, print_table, rounds_of, speedups  # isort: skip (threads)

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ssl_platform.ops.linear_probe import LinearClassifiers, Rows, Standard, fit_sgd

RATES = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


def some_rows(folder: Path, num_rows: int, dim: int, num_classes: int) -> Rows:
    path = folder / f"{num_classes}.npy"
    np.save(path, np.random.default_rng(0).standard_normal((num_rows, dim)).astype(np.float16))
    features = torch.from_numpy(np.load(path, mmap_mode="c"))
    labels, positions = torch.arange(num_rows) % num_classes, torch.arange(num_rows)
    standard = Standard.of(features, positions)
    return Rows(features, labels, positions, standard, torch.device("cpu"))


def fit(rows: Rows, num_classes: int, rates: list[float]) -> LinearClassifiers:
    return fit_sgd(
        rows, num_classes, learning_rates=rates, weight_decays=[0.0],
        num_epochs=1, batch_size=1024, momentum=0.9, seed=0,
    )  # fmt: skip


def rows(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for num_classes in options.classes:
            table = some_rows(Path(folder), options.rows, options.dim, num_classes)
            chosen = {"eight": RATES, "one": RATES[-1:]}
            works = {key: partial(fit, table, num_classes, chosen[key]) for key in chosen}
            eight, one = rounds_of(works, options.rounds).values()
            name = f"8 rates, {num_classes} classes"
            yield Row(f"{name}, prices of one", speedups(eight, one), 8, "")
            both = [(a + b) / (2 * b) for a, b in zip(eight, one, strict=True)]
            yield Row(f"{name}, with the second fit", both, 4.5, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    torch.set_num_threads(1)
    print_table(rows(parser.parse_args()))


if __name__ == "__main__":
    main()
