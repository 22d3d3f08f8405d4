"""Where the time of a training step goes: figures, advice, and lines to print."""

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
LARGE_SHARE = 0.2  # of a step: a part that takes more gets advice
REMEDIES = {  # for the parts other than the wait
    "loss": "fewer prototypes, or fewer samples to balance them over, make it shorter",
    "rest": "hooks, checkpoints, and processes that wait for the slowest; see the trace",
}

Time = TypeVar("Time")


def split_step(
    marks: Sequence[tuple[str, Time]],
    waited: float,
    seconds: Callable[[Time, Time], float],
) -> dict[str, float]:
    """Seconds of each part of one step; their sum is the time from the first mark to the last.

    Args:
        marks: the part that begins at each time, first ``wait``; the last mark ends the step.
        waited: seconds that the host waited for data in this step. While the device was still busy
            that wait cost nothing, so it counts only up to the length of the part.
        seconds: the time between two marks.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    for (part, start), (_, end) in pairwise(marks):
        parts[part] += seconds(start, end)
    between_steps = parts["wait"]  # ranks agree there, and a checkpoint may be written
    parts["wait"] = min(waited, between_steps)
    parts["rest"] += between_steps - parts["wait"]
    return parts


@dataclass(frozen=True)
class StepTiming:
    """Means over some steps and all processes, and what bounds the reading of images."""

    num_steps: int
    num_processes: int
    batch_size: int  # of each process
    parts: Mapping[str, float]  # seconds of a step
    longest_wait: float  # seconds of a step, of the process that waits most: the others wait for it
    decode: float  # seconds of CPU time per image
    augment: float
    num_workers: int  # of each process
    spare_cores: int  # for the data workers of each process
    is_compiled: bool  # whether the compiled kernel makes the crops

    @property
    def seconds(self) -> float:
        """Of a step."""
        return sum(self.parts.values())

    def results(self, trace: str | None) -> dict[str, Any]:
        """Plain values for ``summary.json``; ``trace`` is the path of the trace, if any."""
        return {
            "steps": self.num_steps,
            "processes": self.num_processes,
            "seconds_per_step": self.seconds,
            "parts": {
                name: {"seconds": part, "share": part / self.seconds}
                for name, part in self.parts.items()
            },
            "reading": {
                "num_workers": self.num_workers,
                "batch_size": self.batch_size,
                "decode_cpu_seconds_per_image": self.decode,
                "augment_cpu_seconds_per_image": self.augment,
            },
            "advice": advice(self),
            "trace": trace,
        }


def advice(timing: StepTiming) -> list[str]:
    """One line for each part that takes a large share of a step, with what to change."""
    total = timing.seconds
    lines = _advice_on_waiting(timing) if timing.longest_wait > LARGE_SHARE * total else []
    shares = {part: timing.parts[part] / total for part in REMEDIES}
    return lines + [
        f"{PARTS[part]} takes {share:.0%} of a step: {REMEDIES[part]}"
        for part, share in shares.items()
        if share > LARGE_SHARE
    ]


def _advice_on_waiting(timing: StepTiming) -> list[str]:
    share = f"waiting for data takes {timing.longest_wait / timing.seconds:.0%} of a step"
    cost = timing.decode + timing.augment
    rate = timing.batch_size / (timing.seconds - timing.longest_wait)
    needed = math.ceil(rate * cost)
    best = min(needed, timing.spare_cores)
    remedies = []
    if timing.num_workers < best:
        remedies.append(f"set data.num_workers={best}, now {timing.num_workers}")
    if needed > timing.spare_cores:
        remedies.append(
            f"there are cores for {timing.spare_cores}: use fewer or smaller crops "
            "(data.transform.crops), or more cores for each process"
        )
    elif timing.num_workers >= needed:
        remedies.append(
            f"there are {timing.num_workers}, which is enough: they wait for the disk (copy the "
            "images to a local one) or for cores that others use"
        )
    lines = [
        f"{share}; {rate:.0f} images/s at {1000 * cost:.2g} ms of CPU time need {needed} data "
        f"worker{'s' if needed > 1 else ''} in each process: " + "; ".join(remedies)
    ]
    if not timing.is_compiled:
        lines.append(
            "crops are made by OpenCV; the compiled kernel takes less time: see docs/speed.md to "
            "build it"
        )
    return lines


def report(results: Mapping[str, Any]) -> list[str]:
    """Lines to print for what `StepTiming.results` gives."""
    processes = f", {results['processes']} processes" if results["processes"] > 1 else ""
    reading = results["reading"]
    decode = 1000 * reading["decode_cpu_seconds_per_image"]
    augment = 1000 * reading["augment_cpu_seconds_per_image"]
    where = (
        f"beside it, in {reading['num_workers']} data workers of each process"
        if reading["num_workers"]
        else "part of the wait, as data.num_workers=0"
    )
    lines = [
        f"a step takes {results['seconds_per_step']:.3g} s (mean of {results['steps']} "
        f"steps{processes}):",
        *(
            f"  {PARTS[name]:<22}{part['seconds']:9.4f} s {part['share']:5.0%}"
            for name, part in results["parts"].items()
        ),
        f"  {where}: decode {decode:.2g} ms + augment {augment:.2g} ms of CPU time an image, "
        f"{(decode + augment) * reading['batch_size'] / 1000:.2g} s a batch",
        *(f"  advice: {line}" for line in results["advice"]),
    ]
    if results["trace"]:
        lines.append(f"  trace: {results['trace']}; open it at https://ui.perfetto.dev")
    return lines
