"""All ratios in one table, which says whether each reaches its target.

    python benchmarks/table.py [NAME ...] [--rounds N]

CPU time of one thread; each row is the median of several rounds, in which the contenders take
turns, and the range of the rounds. "x" is how many times as fast as the peer, which is named last.
"""

from ratios import print_table  # isort: skip (threads)

import argparse
from itertools import chain

import index
import kmeans
import larc
import multicrop
import sinkhorn
import start
import step
import torch
import transport

BENCHMARKS = {  # with the number of rounds that gives a steady median
    "multicrop": (multicrop.rows, 9),
    "transport": (transport.rows, 9),
    "index": (index.rows, 7),
    "sinkhorn": (sinkhorn.rows, 9),
    "kmeans": (kmeans.rows, 3),
    "larc": (larc.rows, 15),
    "step": (step.rows, 5),
    "start": (start.rows, 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    unknown = set(args.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    print_table(
        chain.from_iterable(
            rows(args.rounds or rounds)
            for name, (rows, rounds) in BENCHMARKS.items()
            if name in (args.names or BENCHMARKS)
        )
    )


if __name__ == "__main__":
    main()
