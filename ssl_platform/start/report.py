"""What the command tells: what it saw, what it chose, how long it takes; at the end, the answer."""

import json
from collections.abc import Sequence
from pathlib import Path

from ssl_platform.errors import first_few
from ssl_platform.evaluation.results import Results
from ssl_platform.start.facts import Facts
from ssl_platform.start.limits import expectations
from ssl_platform.start.plan import Plan
from ssl_platform.start.rules import steps
from ssl_platform.start.stages import Stage

MAIN = "20-NN"  # the figure of an evaluation by neighbours
SHOWN = (  # keys of the short plan, with what they are called there
    ("trunk", "trunk"),
    ("data.transform.crops.large.size", "crops of"),
    ("data.batch_size", "batch"),
    ("loss.queue_length", "queue"),
    ("heads.prototypes.num_prototypes", "prototypes"),
    ("loss.epsilon", "epsilon"),
    ("optimizer", "optimizer"),
    ("optimizer.lr", "rate"),
    ("num_epochs", "epochs"),
    ("launch.threads", "threads"),
    ("data.num_workers", "data workers"),
)


def seen(facts: Facts) -> list[str]:
    """What the images are, a line each."""
    sides = facts.short_sides
    kinds = {1: "grey", 3: "in colour"}
    what = kinds.get(facts.channels, f"of {facts.channels} bands")
    if facts.stored:
        what += f", {' and '.join(facts.stored)} values"
    lines = [
        facts.summary,
        f"{what}; short side {sides[0]} to {sides[-1]} pixels, mostly about {facts.side}",
    ]
    if facts.is_labelled:
        sizes = sorted(facts.class_sizes)
        lines[0] += f"; {sizes[0]:,} to {sizes[-1]:,} images a class"
    if facts.tried < facts.number:
        lines.append(
            f"a sample was looked at: {facts.tried} images were read, {facts.compared:,} compared "
            "for copies"
        )
    return lines


def header(plan: Plan, file: Path) -> list[str]:
    """The lab card of the file: command, machine, time, what was seen."""
    machine = plan.case.machine
    return [
        f"python tools/run_distributed.py config={file}",
        f"{in_time(plan.hours)} by steps timed on {machine.name}, {machine.cores} cores, "
        f"{machine.memory / 2**30:.0f} GiB",
        *seen(plan.case.facts),
        "Each line: the value, why, and [who says so]. Change one at a time.",
    ]


def told(plan: Plan) -> list[str]:
    """The short plan."""
    case = plan.case
    values = {choice.key: choice.value for choice in plan.choices}
    chosen = [f"{name} {_plain(values[key])}" for key, name in SHOWN if key in values]
    number = steps(case)
    images = number * values["data.batch_size"]
    lines = [*(f"  {line}" for line in seen(case.facts)), "chosen:", f"  {', '.join(chosen)}"]
    lines += [f"  timed here: {name}, {rate:.0f} images/s" for name, rate in plan.tried.items()]
    lines.append(
        f"takes {in_time(plan.hours)}: {number:,} steps, {images:,} images seen, each "
        f"{images / case.facts.number:.3g} times"
    )
    expected = expectations(case.facts)
    return [*lines, *(f"note: {line}" for line in expected)]


def _plain(value: object) -> str:
    return first_few(value) if isinstance(value, list) else str(value)


def in_time(hours: float) -> str:
    """``about 5 min``, ``about 2.5 h``."""
    minutes = 60 * hours
    return f"about {max(1, round(minutes))} min" if minutes < 90 else f"about {hours:.1f} h"


def answer(way: Sequence[Stage]) -> list[str]:
    """What the stages have found, in a few lines, and where to look."""
    run = way[0].folder
    lines = []
    summary = json.loads((run / "summary.json").read_text())
    if "verdict" in summary:
        lines.append(f"verdict: {summary['verdict']['kind']}. {summary['verdict']['text']}")
    for stage in way[1:]:
        if (stage.folder / "results.json").is_file():
            lines += _figures(stage)
    looked = [run / "report.html", *(stage.folder / "index.html" for stage in way)]
    lines += [f"look at {path}" for path in looked if path.is_file()]
    return ["", "found:", *(f"  {line}" for line in lines)]


def _figures(stage: Stage) -> list[str]:
    """The main figure of an evaluation, and the same of its baselines."""
    results = Results.read(stage.folder)
    what = MAIN if MAIN in results.figures else next(iter(results.figures))
    metric, figure = next(iter(results.figures[what].items()))
    others = [f"{name} {f[what][metric]:.1f}" for name, f in results.baselines.items()]
    others.append(f"images: {results.details['test_images_are']}")
    return [f"{what} {metric} {figure:.1f} ({', '.join(others)})"]
