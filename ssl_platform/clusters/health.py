"""How the training of a run ended, as the page of its clusters has to tell."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOOD, DOUBTFUL, BAD, UNKNOWN = "good", "doubtful", "bad", "unknown"
LEVELS = {"learned": GOOD, "learned little": DOUBTFUL, "collapsed": BAD, "no proof": DOUBTFUL}


@dataclass(frozen=True)
class TrainingHealth:
    """The verdict on a training, and the signs of trouble at its end.

    Attributes:
        level: ``good``, ``doubtful``, ``bad`` or ``unknown``.
        kind: of the verdict: ``learned``, ``collapsed``, ...; empty without one.
        text: a sentence.
        signs: each with ``text`` and ``remedy``.
        report: path of the run's page, relative to the folder of the clusters; None without one.
    """

    level: str
    kind: str
    text: str
    signs: list[dict[str, str]] = field(default_factory=list)
    report: str | None = None


def training_health(run: Path, folder: Path) -> TrainingHealth:
    """What ``summary.json`` of a run says of its training.

    Args:
        run: the directory of the run, or of one of its checkpoints.
        folder: where the page lies that links to the run's ``report.html``.
    """
    run = run.parents[1] if run.parent.name == "checkpoints" else run
    page = run / "report.html"
    report = os.path.relpath(page, folder) if page.exists() else None
    try:
        results: Any = json.loads((run / "summary.json").read_text())
    except (OSError, ValueError):
        text = "The training has not come to its end, so there is no verdict on it."
        return TrainingHealth(UNKNOWN, "", text, report=report)
    results = results if isinstance(results, dict) else {}
    signs = [
        {key: str(sign.get(key, "")) for key in ("text", "remedy")}
        for sign in _list(results.get("doctor"))
        if isinstance(sign, dict)
    ]
    verdict = results.get("verdict")
    if not isinstance(verdict, dict):
        text = "This run has kept no verdict on its training."
        return TrainingHealth(BAD if signs else UNKNOWN, "", text, signs, report)
    kind = str(verdict.get("kind", ""))
    level = LEVELS.get(kind, UNKNOWN)
    level = DOUBTFUL if signs and level != BAD else level
    return TrainingHealth(level, kind, str(verdict.get("text", "")), signs, report)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
