"""Where the time of a training step goes: figures, what to do about them, and lines to read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

PARTS = {  # in the order of a step, and what they are called in a line
    "wait": "wait for data",
    "forward": "forward",
    "loss": "loss with assignment",
    "backward": "backward",
    "optimizer": "optimizer",
    "rest": "rest",
}
DOMINANT = 0.2  # share of a step from which on a part is advised about

Moment = TypeVar("Moment")


def parts_of(
    marks: Sequence[tuple[str, Moment]],
    waited: float,
    seconds: Callable[[Moment, Moment], float],
) -> dict[str, float]:
    """Seconds of each part of one step; they sum up to the time from the first mark to the last.

    Args:
        marks: the part that begins at each moment, first ``wait``; the last mark ends the step.
        waited: seconds that the host waited for data in this step. What the device was still busy
            with meanwhile has cost nothing, so it counts up to the length of the part.
        seconds: the time between two moments.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    for (part, start), (_, end) in pairwise(marks):
        parts[part] += seconds(start, end)
    between = parts["wait"]  # the steps: ranks agree, a checkpoint may be written
    parts["wait"] = min(waited, between)
    parts["rest"] += between - parts["wait"]
    return parts


@dataclass(frozen=True)
class Reading:
    """What it costs to read images, and what there is to do it with."""

    decode: float  # seconds of CPU time of an image
    augment: float
    num_workers: int  # of each process
    spare_cores: int  # for the data workers of each process
    is_compiled: bool  # whether crops are made as fast as they can be


@dataclass(frozen=True)
class Anatomy:
    """The mean over some steps and all processes."""

    num_steps: int
    num_processes: int
    batch_size: int  # of each process
    parts: Mapping[str, float]  # seconds of a step
    longest_wait: float  # seconds of a step, of the process that waits most: the others wait for it
    reading: Reading

    @property
    def seconds(self) -> float:
        """Of a step."""
        return sum(self.parts.values())

    def results(self, trace: str | None) -> dict[str, Any]:
        """Plain values; ``trace`` is where one has been written."""
        reading = self.reading
        return {
            "steps": self.num_steps,
            "processes": self.num_processes,
            "seconds_per_step": self.seconds,
            "parts": {
                name: {"seconds": part, "share": part / self.seconds}
                for name, part in self.parts.items()
            },
            "reading": {
                "num_workers": reading.num_workers,
                "batch_size": self.batch_size,
                "decode_cpu_seconds_per_image": reading.decode,
                "augment_cpu_seconds_per_image": reading.augment,
            },
            "advice": advice(self),
            "trace": trace,
        }


def advice(anatomy: Anatomy) -> list[str]:
    """One line for each part that takes too much of a step, with what to change; mostly none."""
    total = anatomy.seconds
    found = _advice_on_waiting(anatomy) if anatomy.longest_wait > DOMINANT * total else []
    for part, remedy in (
        ("loss", "fewer prototypes, or fewer samples to balance them over, make it shorter"),
        ("rest", "hooks, checkpoints, and processes that wait for the slowest; the trace tells"),
    ):
        share = anatomy.parts[part] / total
        if share > DOMINANT:
            found.append(f"{PARTS[part]} takes {share:.0%} of a step: {remedy}")
    return found


def _advice_on_waiting(anatomy: Anatomy) -> list[str]:
    reading, total = anatomy.reading, anatomy.seconds
    cost = reading.decode + reading.augment
    rate = anatomy.batch_size / (total - anatomy.longest_wait)
    needed = math.ceil(rate * cost)
    best = min(needed, reading.spare_cores)
    remedies = []
    if reading.num_workers < best:
        remedies.append(f"set data.num_workers={best}, now {reading.num_workers}")
    if needed > reading.spare_cores:
        remedies.append(
            f"there are cores for {reading.spare_cores}: use fewer or smaller crops "
            "(data.transform.crops), or more cores for each process"
        )
    elif reading.num_workers >= needed:
        remedies.append(
            f"there are {reading.num_workers}, so that they wait themselves: for the disk (copy "
            "the images to a local one) or for cores that others use"
        )
    found = [
        f"waiting for data takes {anatomy.longest_wait / total:.0%} of a step; {rate:.0f} images/s "
        f"at {1000 * cost:.2g} ms of CPU time need {needed} data "
        f"worker{'s' if needed > 1 else ''} in each process: " + "; ".join(remedies)
    ]
    if not reading.is_compiled:
        found.append(
            "crops are made by OpenCV; the compiled kernel takes less time: docs/speed.md tells "
            "how it is built"
        )
    return found


def lines(results: Mapping[str, Any]) -> list[str]:
    """What `Anatomy.results` gives, to be read."""
    count = results["processes"]
    of = f"{results['steps']} steps" + (f", {count} processes" if count > 1 else "")
    reading = results["reading"]
    decode, augment = (
        1000 * reading[f"{work}_cpu_seconds_per_image"] for work in ("decode", "augment")
    )
    where = (
        f"beside it, in {reading['num_workers']} data workers of each process"
        if reading["num_workers"]
        else "part of the wait, as data.num_workers=0"
    )
    return [
        f"a step takes {results['seconds_per_step']:.3g} s (mean of {of}):",
        *(
            f"  {PARTS[name]:<22}{part['seconds']:9.4f} s {part['share']:5.0%}"
            for name, part in results["parts"].items()
        ),
        f"  {where}: decode {decode:.2g} ms + augment {augment:.2g} ms of CPU time an image, "
        f"{(decode + augment) * reading['batch_size'] / 1000:.2g} s a batch",
        *(f"  advice: {line}" for line in results["advice"]),
        *(
            [f"  trace: {results['trace']}; open it at https://ui.perfetto.dev"]
            if results["trace"]
            else []
        ),
    ]
