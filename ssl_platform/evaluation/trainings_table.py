"""What trainings have found so far, side by side: their loss beside ln K, their kNN accuracy."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssl_platform.evaluation.results import aligned

METRICS, BASELINES, SUMMARY = "metrics.jsonl", "baselines.json", "summary.json"  # of a run
READ = 2**20  # bytes at the end of a file of metrics; thousands of lines
TITLE = "trainings: the latest loss and kNN accuracy in percent, and the latter's baselines"
KNN = "knn/"
FOUND = "views/found"  # percent of the crops that find the other crop of their image


def trainings_table(folders: Iterable[Path]) -> list[str]:
    """Lines of a table with a row for each run, finished or not; none where no run has a figure.

    Args:
        folders: of runs, each with a ``metrics.jsonl``.
    """
    latest = {folder: _latest(folder / METRICS) | _at_the_end(folder) for folder in folders}
    baselines = {folder: _baselines(folder / BASELINES) for folder in latest}
    latest = {folder: figures for folder, figures in latest.items() if figures}
    if not latest:
        return []
    metrics = list(dict.fromkeys(k for f in latest.values() for k in f if k.startswith(KNN)))
    names = list(dict.fromkeys(name for folder in latest for name in baselines[folder]))
    rows = [["run", "epoch", "loss", "ln K", *(f"kNN {m.removeprefix(KNN)}" for m in metrics)]]
    rows[0] += [f"{name} {m.removeprefix(KNN)}" for m in metrics[:1] for name in names]
    verdicts = {folder: _verdict(folder / SUMMARY) for folder in latest}
    has_views = any(FOUND in figures for figures in latest.values())
    rows[0] += ["crops found"] * has_views + ["verdict"] * any(verdicts.values())
    for folder, figures in latest.items():
        row = [f"{folder}{_whose(folder)}", _shown(figures, "epoch", 0)]
        row += [_shown(figures, key, 3) for key in ("loss", "uniform_loss")]
        row += [_shown(figures, metric, 2) for metric in metrics]
        for metric in metrics[:1]:
            scores = (baselines[folder].get(name, {}) for name in names)
            row += [_shown(each, metric.removeprefix(KNN), 2) for each in scores]
        row += [_shown(figures, FOUND, 2)] * has_views
        row += [verdicts[folder]] * any(verdicts.values())
        rows.append(row)
    return [TITLE, *aligned(rows)]


def _whose(folder: Path) -> str:
    """What to say of a run whose kNN accuracy is that of its teacher."""
    lines = _end_of(folder / "config.yaml").splitlines()
    return " (teacher)" if b"evaluate: teacher" in lines else ""


def _shown(figures: dict[str, float], key: str, digits: int) -> str:
    return f"{figures[key]:.{digits}f}" if key in figures else ""


def _latest(path: Path) -> dict[str, float]:
    """The latest value of each figure; of lines that are no JSON, as a crash leaves them, none."""
    figures: dict[str, float] = {}
    for line in _end_of(path).splitlines():
        figures |= _numbers(_parsed(line))
    return figures


def _at_the_end(folder: Path) -> dict[str, float]:
    """What a run has measured after its last epoch, where it has not gone on since."""
    summary = folder / SUMMARY
    try:
        if summary.stat().st_mtime < (folder / METRICS).stat().st_mtime:
            return {}
    except OSError:
        return {}
    figures: dict[str, float] = {}
    for name, part in _parsed(_end_of(summary)).items():
        trained = part.get("trained") if isinstance(part, dict) else None
        figures |= {f"{name}/{key}": value for key, value in _numbers(trained).items()}
    return figures


def _baselines(path: Path) -> dict[str, dict[str, float]]:
    content = _parsed(_end_of(path))
    return {str(name): _numbers(scores) for name, scores in content.items()}


def _verdict(path: Path) -> str:
    """The kind of the verdict on a run that has ended."""
    verdict = _parsed(_end_of(path)).get("verdict")
    kind = verdict.get("kind") if isinstance(verdict, dict) else None
    return kind if isinstance(kind, str) else ""


def _end_of(path: Path) -> bytes:
    """The last megabyte of a file; nothing of what is no file, or cannot be read."""
    try:
        if not path.is_file():  # a pipe never ends
            return b""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - READ))
            return file.read(READ)
    except OSError:
        return b""


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _numbers(values: Any) -> dict[str, float]:
    items = values.items() if isinstance(values, dict) else ()
    return {str(key): float(value) for key, value in items if type(value) in (int, float)}
