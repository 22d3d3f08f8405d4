"""Kill runs again and again: each has to end with the same bits as a run that nobody killed.

``python tests/faults.py`` (``make faults``) takes every method, on one process, two and three, with
and without data workers, with saves that hold the run up and such that do not, and kills it with
SIGKILL at random moments: in the middle of a step, of a save, of an epoch's clustering; all of it,
one rank, or its data workers. It is started again with the same command until it has finished.
``--short`` is the part of it that belongs to the tests.
"""

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import torch  # noqa: E402
from conftest import TINY  # noqa: E402
from forked import tool  # noqa: E402
from tiny_runs import lines, without  # noqa: E402

from ssl_platform.engine import checkpoint  # noqa: E402
from ssl_platform.ops.nested import leaves  # noqa: E402

NUM_STEPS = 12
METHODS = {
    "swav": ["loss.queue_length=64", "loss.queue_start_epoch=0", "loss.freeze_prototypes_steps=2"],
    "deepcluster_v2": [],
    "sela_v2": ["loss.freeze_prototypes_steps=2"],
}


@dataclass(frozen=True)
class Trial:
    """A run that is killed several times."""

    method: str
    processes: int
    num_workers: int
    asynchronous: bool
    every_steps: int  # between checkpoints
    kills: list[str]  # the hook for each start of the run but the last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="two trials")
    parser.add_argument("--seed", type=int, default=0, help="of the kill points")
    options = parser.parse_args()
    start = time.monotonic()
    plan = list(short_plan(options.seed) if options.short else full_plan(options.seed))
    with tempfile.TemporaryDirectory() as folder:
        ends = list(all_trials(plan, Path(folder)))
    kills = sum(len(trial.kills) for trial in plan)
    survived = sum(len(trial.kills) for trial, is_identical in ends if is_identical)
    print(f"{survived} of {kills} kills: the run ended as an unbroken one")
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if survived == kills else 1


def full_plan(seed: int) -> Iterable[Trial]:
    """63 kills in 21 trials."""
    for method in METHODS:
        for processes, count in ((1, 4), (2, 2), (3, 1)):
            for number in range(count):
                rng = random.Random(f"{seed} {method} {processes} {number}")
                yield a_trial(rng, method, processes, num_workers=2 * (number % 2), num_kills=3)


def short_plan(seed: int) -> Iterable[Trial]:
    """2 kills in 2 trials."""
    for method, processes, num_workers in (("swav", 2, 0), ("deepcluster_v2", 1, 2)):
        rng = random.Random(f"{seed} {method}")
        yield a_trial(rng, method, processes, num_workers, num_kills=1)


def a_trial(
    rng: random.Random, method: str, processes: int, num_workers: int, num_kills: int
) -> Trial:
    steps = sorted(rng.sample(range(NUM_STEPS), num_kills))
    victims = ["all", *["rank"] * (processes > 1), *["worker"] * (num_workers > 0)]
    return Trial(
        method,
        processes,
        num_workers,
        asynchronous=rng.random() < 0.5,
        every_steps=rng.choice([1, 2, 3]),
        kills=[a_kill(rng, step, rng.choice(victims), processes) for step in steps],
    )


def a_kill(rng: random.Random, step: int, victim: str, processes: int) -> str:
    # the last epoch starts at step 8, and only what comes after can be resumed at all
    moments = ["backward", "step", "save", *["epoch"] * (step <= 8)]
    moment = "step" if victim == "worker" else rng.choice(moments)
    delay = 0.0 if moment == "backward" else rng.choice([0.0, rng.uniform(0, 0.05)])
    return (
        f"{{name: Kill, step: {step}, rank: {rng.randrange(processes)}, moment: {moment}, "
        f"victim: {victim}, delay: {delay:.4f}}}"
    )


def all_trials(plan: list[Trial], folder: Path) -> Iterable[tuple[Trial, bool]]:
    """Each trial, and whether it has ended as a run that nobody killed."""
    references: dict[tuple[str, int], dict[Any, str]] = {}
    for number, trial in enumerate(plan):
        key = trial.method, trial.processes
        if key not in references:
            unbroken = folder / f"unbroken_{trial.method}_{trial.processes}"
            done = tool(*command(trial), f"output_dir={unbroken}")
            assert done.returncode == 0, done.stderr
            references[key] = fingerprints(unbroken)
        is_identical = ends_as(references[key], trial, folder / f"trial_{number}")
        print(f"{trial.method}, {trial.processes} processes: identical: {is_identical}")
        yield trial, is_identical


def ends_as(reference: dict[Any, str], trial: Trial, output_dir: Path) -> bool:
    arguments = [
        *command(trial),
        f"output_dir={output_dir}",
        f"data.num_workers={trial.num_workers}",
        f"save.asynchronous={str(trial.asynchronous).lower()}",
        f"save.every_steps={trial.every_steps}",
    ]
    for kill in trial.kills:
        code = tool(*arguments, f"+hooks.kill={kill}").returncode
        print(f"{trial.method}, {trial.processes} processes, {kill}: exit {code}", flush=True)
        # it was killed, or a rank or its data workers were; at its end a run has no data workers
        if not (code in (-9, 1, 137) or (code == 0 and "victim: worker" in kill)):
            return False
    done = tool(*arguments)
    if done.returncode != 0:
        print(done.stderr)
        return False
    end = fingerprints(output_dir)
    different = [name for name in reference if end.get(name) != reference[name]]
    print(*(f"DIFFERENT: {name}\n" for name in different), sep="", end="")
    return end == reference


def command(trial: Trial) -> list[str]:
    shared = without(TINY, "config=", "loss.")
    if trial.method != "swav":
        shared = without(shared, "heads.prototypes.num")
        shared.append("heads.prototypes.num_prototypes=[12, 8]")
    if trial.processes == 3:  # which do not share 32 images out
        shared = without(shared, "data.batch_size", "data.train.")
        shared += ["data.batch_size=30", "data.train.num_samples=120"]
    return [
        f"config=pretrain/{trial.method}/quickstart",
        *shared,
        *METHODS[trial.method],
        "plugins=[kill_hook]",
        "hooks.log.every_steps=3",  # windows across checkpoints
        "hooks.knn.every_epochs=2",
        f"launch.processes={trial.processes}",
    ]


def fingerprints(output_dir: Path) -> dict[Any, str]:
    """SHA-256 of each value that a finished run has saved, by its place, and of its metrics."""
    folder = checkpoint.latest(output_dir)
    assert folder is not None and folder.name == f"step_{NUM_STEPS:08d}"
    prints = {"metrics.jsonl": digest(lines(output_dir))}
    for file in sorted(folder.glob("*.pt")):
        state = checkpoint.read(file)
        state.get("hooks", {}).pop("kill", None)
        prints |= {(file.stem, *path): digest(leaf) for path, leaf in leaves(state)}
    return prints


def digest(value: Any) -> str:
    content = repr(value).encode()
    if isinstance(value, torch.Tensor):
        content = f"{value.dtype} {tuple(value.shape)}".encode()
        content += value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
