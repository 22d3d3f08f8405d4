"""The figures of ``metrics.jsonl`` as charts: which go together, and with what they are compared.

A chart is a mapping of plain values for the page's script: ``title``, ``note``, ``x`` (steps), and
``series``, each with ``name``, ``values`` (None where a step has none) and ``is_reference``, true
for a line to compare the others with.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

POSITION = ("step", "epoch", "seconds")
MOST_POINTS = 400  # of a chart; what more there are is averaged
LARGEST_SHARE = 1.5  # figures of a group up to this are shown in one chart
LN_K = "ln K"

Lines = Sequence[Mapping[str, float]]
Baselines = Mapping[str, Mapping[str, Mapping[str, float]]]

# title, a note, and the figures by what they are called in the chart
KNOWN: list[tuple[str, str, dict[str, str]]] = [
    (
        "Loss",
        "ln K is the loss of a model that predicts every prototype equally: staying there is "
        "learning nothing.",
        {"loss": "loss", "uniform_loss": LN_K},
    ),
    (
        "Sizes of the clusters",
        "Images in a cluster, of the labels that an epoch trains on.",
        {f"assignments/{name}": name for name in ("smallest", "median", "largest")},
    ),
    ("Learning rate", "", {"lr": "learning rate"}),
    ("Images per second", "Over all processes.", {"images_per_second": "images/s"}),
    ("Waiting for images", "Share of the time.", {"data_wait": "share"}),
]
MEASURES = ("knn", "views")  # groups of figures that are compared with those of no training
NOTES = {
    "knn": "Of the trunk's features, beside the untrained trunk's and raw pixels.",
    "views": "Of two crops of each image of a sample, beside the untrained trunk's and raw pixels.",
    "health": "Entropies over ln K: that of the mean prediction should stay near 1, that of one "
    "image's should fall well below.",
}
TITLES = {
    "knn": "kNN accuracy, %: ",
    "views": "Crops of an image: ",
    "health": "Health",
    "assignments": "Labels of an epoch",
}


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The figures by step, each with its ``step``; of a step that comes twice, the later ones.

    Lines after the step that a run has gone on from are replaced by what follows. Lines that are
    no JSON, as a crash leaves them, are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    kept: list[dict[str, float]] = []
    for text in path.read_bytes().splitlines():
        line: Any = None
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            continue
        figures = {str(k): v for k, v in line.items() if type(v) in (int, float) and isfinite(v)}
        while kept and kept[-1]["step"] > line["step"]:
            kept.pop()
        if kept and kept[-1]["step"] == line["step"]:
            kept[-1] |= figures
        else:
            kept.append(figures)
    return kept


def charts(lines: Lines, baselines: Baselines) -> list[dict[str, Any]]:
    """Charts of all figures, those first that tell most.

    Args:
        lines: from `read_metrics`.
        baselines: figures of what is not trained, by group (``knn``, ``views``), its name, and
            the name of the figure.
    """
    names = dict.fromkeys(name for line in lines for name in line if name not in POSITION)
    known = [(title, note, own) for title, note, own in KNOWN if own.keys() & names.keys()]
    used = {name for _, _, own in known for name in own}
    groups: dict[str, list[str]] = {}
    for name in (name for name in names if name not in used):
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    loss, rest = known[:1], known[1:]
    drawn = [_chart(lines, *chart) for chart in loss]
    for group in sorted(groups, key=lambda group: (group not in MEASURES, group == "")):
        drawn += _of_group(lines, group, groups[group], baselines.get(group, {}))
    return drawn + [_chart(lines, *chart) for chart in rest]


def with_results(lines: Lines, results: Mapping[str, Any], step: int) -> list[Mapping[str, float]]:
    """The lines and what was measured after the last one, which only the results have."""
    last: dict[str, float] = {"step": step}
    for group in MEASURES:
        trained = (results.get(group) or {}).get("trained") or {}
        last |= {f"{group}/{name}": value for name, value in trained.items()}
    if len(last) == 1:
        return list(lines)
    if lines and lines[-1]["step"] == step:
        return [*lines[:-1], {**lines[-1], **last}]
    return [*lines, last]


def latest(lines: Lines, name: str) -> float | None:
    """The last value of a figure; None where it was never measured."""
    return next((line[name] for line in reversed(lines) if name in line), None)


def _of_group(
    lines: Lines, group: str, names: list[str], baselines: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Charts of the figures with one prefix: those of like size together."""
    title, note = TITLES.get(group, group or "Other figures"), NOTES.get(group, "")
    short = {name: name.removeprefix(f"{group}/") for name in names}
    if group in MEASURES:
        return [
            _chart(
                lines,
                f"{title}{_in_words(short[name])}",
                note,
                {name: "trained"},
                {what: own[short[name]] for what, own in baselines.items() if short[name] in own},
            )
            for name in names
        ]
    largest = {name: max(abs(line[name]) for line in lines if name in line) for name in names}
    shares = {name: short[name] for name in names if group and largest[name] <= LARGEST_SHARE}
    alone = [name for name in names if name not in shares]
    drawn = [_chart(lines, title, note, shares)] if shares else []
    where = f"{title}: " if group else ""
    return drawn + [
        _chart(lines, f"{where}{_in_words(short[name])}", "", {name: _in_words(short[name])})
        for name in alone
    ]


def _in_words(name: str) -> str:
    return {"found": "found, %", "rankme": "RankMe"}.get(name, name.replace("_", " "))


def _chart(
    lines: Lines,
    title: str,
    note: str,
    names: Mapping[str, str],
    references: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One chart of the figures ``names``, with lines at the references' heights."""
    rows = _thinned([line for line in lines if line.keys() & names.keys()], names)
    if references:  # they were measured before the first step
        rows = [{"step": 0}, *rows]
    series = [
        {
            "name": _in_words(shown),
            "values": [row.get(name) for row in rows],
            "is_reference": shown == LN_K,
        }
        for name, shown in names.items()
        if any(name in row for row in rows)
    ]
    for name, value in (references or {}).items():
        series.append({"name": name, "values": [value] * len(rows), "is_reference": True})
    return {"title": title, "note": note, "x": [row["step"] for row in rows], "series": series}


def _thinned(rows: list[Mapping[str, float]], names: Iterable[str]) -> list[dict[str, float]]:
    """At most `MOST_POINTS` rows, each the mean of as many that follow each other."""
    length = -(-len(rows) // MOST_POINTS) or 1
    if length == 1:
        return [dict(row) for row in rows]
    thinned = []
    for start in range(0, len(rows), length):
        part = rows[start : start + length]
        values = {name: [row[name] for row in part if name in row] for name in names}
        means = {name: sum(own) / len(own) for name, own in values.items() if own}
        thinned.append({**means, "step": part[-1]["step"]})
    return thinned
