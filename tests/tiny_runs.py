"""Tiny trainings, and what they leave on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import tool

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import ConfigError, StopRequested
from ssl_platform.ops.nested import leaves

QUEUE = ["loss.queue_length=64", "loss.queue_start_epoch=0", "loss.freeze_prototypes_steps=2"]
BY_THE_CLOCK = ("images_per_second", "data_wait", "seconds")  # figures that no run repeats


def without(options: list[str], *starts: str) -> list[str]:
    """The options that begin otherwise."""
    return [option for option in options if not option.startswith(starts)]


def train(options: list[str], output_dir: Path, *more: str) -> dict[str, Any]:
    """Train in this process; returns the results."""
    return ssl_platform.run(compose([*options, f"output_dir={output_dir}", *more]))


def run_tool(arguments: list[str]) -> None:
    """Run a command line, which has to succeed."""
    done = tool(*arguments)
    assert done.returncode == 0, done.stderr


def refused(options: list[str], output_dir: Path, *more: str) -> list[str]:
    """The lines with which a training is refused."""
    with pytest.raises(ConfigError) as error:
        train(options, output_dir, *more)
    return error.value.problems


def stop_at(step: int, moment: str = "step", number: str = "SIGTERM", rank: int = 0) -> str:
    """A hook of the plug-in ``kill_hook`` that has the run stopped."""
    return (
        f"+hooks.kill={{name: Kill, step: {step}, rank: {rank}, moment: {moment}, victim: rank, "
        f"signal: {number}}}"
    )


def stopped_at(step: int, options: list[str], output_dir: Path, *more: str) -> None:
    """Train, and be stopped at a step."""
    with pytest.raises(StopRequested):
        train(options, output_dir, *more, stop_at(step))


def checkpoints(output_dir: Path) -> list[int]:
    """The steps of the checkpoints."""
    names = (path.name for path in (output_dir / "checkpoints").iterdir())
    return sorted(int(name.removeprefix("step_")) for name in names)


def folder_of(epoch: int, output_dir: Path, steps_per_epoch: int = 4) -> Path:
    """The checkpoint of an epoch's end."""
    return output_dir / "checkpoints" / f"step_{epoch * steps_per_epoch:08d}"


def saved(output_dir: Path, epoch: int, part: str = "shared.pt") -> dict[str, Any]:
    """A file of the checkpoint of an epoch's end."""
    return torch.load(folder_of(epoch, output_dir) / part, weights_only=True)


def last_saved(output_dir: Path, part: str = "shared.pt") -> dict[str, Any]:
    """A file of the latest checkpoint."""
    folder = max((output_dir / "checkpoints").iterdir())
    return torch.load(folder / part, weights_only=True)


def lines(output_dir: Path) -> list[dict[str, Any]]:
    """The metrics without the figures that depend on the clock."""
    parsed = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in BY_THE_CLOCK} for line in parsed]


def losses(output_dir: Path) -> list[float]:
    """The loss of each line that has one."""
    return [line["loss"] for line in lines(output_dir) if "loss" in line]


def assert_equal(first: Any, second: Any) -> None:
    """Both states have the same leaves, bit for bit."""
    first, second = dict(leaves(first)), dict(leaves(second))
    assert first.keys() == second.keys()
    for path, value in first.items():
        other = second[path]
        assert torch.equal(value, other) if torch.is_tensor(value) else value == other, path
