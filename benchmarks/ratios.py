"""What the benchmarks share: interleaved rounds, and the table of ratios."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from time import process_time
from typing import Any

# read once, when torch or a BLAS is imported: one thread, and no log of the profiler
os.environ |= {"OMP_NUM_THREADS": "1", "KINETO_LOG_LEVEL": "99"}


@dataclass
class Row:
    """One measurement: the median of several rounds, and their spread."""

    work: str
    values: list[float]
    target: float
    unit: str = "x"  # times as fast as the peer, to be reached; else a quantity, not to be exceeded

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        return self.median >= self.target if self.unit == "x" else self.median <= self.target


def rounds_of(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = process_time,
) -> dict[str, list[float]]:
    """CPU seconds of each contender in each round.

    They take turns, so that a busy machine slows all alike. A first round is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            start = clock()
            work()
            if number > 0:
                seconds[name].append(clock() - start)
    return seconds


def speedups(peer: list[float], ours: list[float]) -> list[float]:
    return [a / b for a, b in zip(peer, ours, strict=True)]


def extra_mebibytes(work: Callable[[], Any]) -> float:
    """The most that torch held at once while ``work`` ran."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = sorted(recorded.events(), key=lambda event: event.time_range.start)
    held = accumulate(
        event.cpu_memory_usage if event.name == "[memory]" else event.self_cpu_memory_usage
        for event in events
    )
    return max(held) / 2**20


def run_alone(doc: str, rows: Callable[[int], Iterable[Row]], rounds: int) -> None:
    """One benchmark from the command line, in one thread; ``doc`` describes it."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    print_table(rows(parser.parse_args().rounds))


def print_table(rows: Iterable[Row]) -> None:
    """Print each row as soon as it is measured."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, load {load}")
    for row in rows:
        low, high = min(row.values), max(row.values)
        relation = "at least" if row.unit == "x" else "at most"
        print(
            f"{row.work:58}{row.median:7.2f} {row.unit:4} ({low:.2f} .. {high:.2f})".ljust(90)
            + f"{relation} {row.target:g}: {'met' if row.met else 'MISSED'}",
            flush=True,
        )
