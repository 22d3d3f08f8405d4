"""The page of a run: ``report.html``, one file that loads nothing else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any

from ssl_platform.evaluation.verdict import judge
from ssl_platform.files import read_small, reason
from ssl_platform.reports.crops import CroppedImage
from ssl_platform.reports.curves import Baselines, Lines, charts, latest, read_metrics, with_results
from ssl_platform.reports.facts import differences_from_recipe, next_commands
from ssl_platform.reports.sample_values import NOTHING, SampleView
from ssl_platform.reports.templates import page_bytes

METRICS, BASELINES, SUMMARY = "metrics.jsonl", "baselines.json", "summary.json"  # of a run
PAGE = "report.html"  # in the directory of a run
SECTIONS = {
    "curves": "Curves",
    "crops": "Crops",
    "prototypes": "Prototypes",
    "map": "Map",
    "neighbours": "Neighbours",
    "confusion": "Confusion",
    "recipe": "Recipe",
    "speed": "Speed",
    "machine": "Machine",
    "next": "Next",
}


@dataclass(frozen=True)
class Reported:
    """All that the page of a run shows.

    Attributes:
        run_dir: its directory.
        config: plain values without secrets, references filled in.
        results: as in ``summary.json``, as far as there are any.
        lines: of ``metrics.jsonl``, see `read_metrics`.
        baselines: see `charts`.
        images: what the training set holds, in one line.
        epoch, num_epochs, step: finished epochs, of so many, and finished steps.
        cropped: images beside their crops.
        view: of a sample; None where there is none.
        missing: why something is missing, by ``curves``, ``crops`` and ``sample``.
    """

    run_dir: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    lines: Lines
    baselines: Baselines
    images: str
    epoch: int
    num_epochs: int
    step: int
    cropped: list[CroppedImage]
    view: SampleView | None
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run_dir: Path, *, missing: Mapping[str, str], **others: Any) -> "Reported":
        """With the figures that lie in the run's directory."""
        lines: Lines = []
        found = dict(missing)
        try:
            lines = read_metrics(run_dir / METRICS)
        except OSError as error:
            found["curves"] = f"{METRICS} cannot be read ({reason(error)})."
        results = others["results"]
        if others["epoch"] >= others["num_epochs"]:
            lines = with_results(lines, results, others["step"])
        of_views = results.get("views")
        baselines = {
            "knn": _finite(json_file(run_dir / BASELINES)),
            "views": _finite({} if not isinstance(of_views, dict) else of_views | {"trained": 0}),
        }
        return cls(run_dir, lines=lines, baselines=baselines, missing=found, **others)

    @property
    def is_over(self) -> bool:
        """Whether the training has reached its last epoch."""
        return self.epoch >= self.num_epochs


def _finite(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of each mapping among some results."""
    return {
        what: {k: v for k, v in own.items() if type(v) in (int, float) and isfinite(v)}
        for what, own in found.items()
        if isinstance(own, Mapping)
    }


def json_file(path: Path) -> dict[str, Any]:
    """The contents of a file of a run; none where it cannot be read."""
    try:
        content = json.loads(read_small(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def report_page(reported: Reported) -> bytes:
    """The page as a file."""
    config, results = reported.config, reported.results
    drawn = charts(reported.lines, reported.baselines) if reported.lines else []
    differences, not_compared = differences_from_recipe(config)
    missing = {"curves": "No figures yet.", "crops": "", "sample": ""} | reported.missing
    of_sample, data = (NOTHING, {}) if reported.view is None else reported.view.values
    return page_bytes(
        "report.html",
        {
            "name": str(config.get("name") or reported.run_dir.name),
            "facts": _facts(reported),
            "sections": list(SECTIONS.items()),
            "verdict": _verdict(reported),
            "signs": [sign for sign in results.get("doctor") or [] if isinstance(sign, Mapping)],
            "figures": _figures(reported),
            "charts": drawn,
            "cropped": reported.cropped,
            "missing": missing | {"recipe": not_compared},
            "differences": differences,
            "recipe": config.get("recipe"),
            "speed": _speed(results),
            "profile": _profile(results.get("profile")),
            "machine": results.get("machine"),
            "commands": next_commands(reported.run_dir, config, is_over=reported.is_over),
            "written": f"{datetime.now().astimezone():%d %B %Y, %H:%M:%S %Z}",
            "data": {"charts": drawn, **data},
            **of_sample,
        },
    )


def _facts(reported: Reported) -> list[str]:
    """What was trained, in a few words."""
    parts = [reported.config.get(part) for part in ("loss", "trunk")]
    names = [str(part["name"]) for part in parts if isinstance(part, Mapping) and "name" in part]
    return [*names, *([reported.images] if reported.images else [])]


def _verdict(reported: Reported) -> dict[str, Any]:
    results, epoch, num_epochs = reported.results, reported.epoch, reported.num_epochs
    if not reported.is_over:
        return {
            "kind": "training",
            "title": "Not at its end",
            "text": f"Epoch {epoch + 1} of {num_epochs}, step {reported.step:,}. The training goes "
            "on, or was stopped; the verdict comes at the end.",
            "progress": epoch / num_epochs,
        }
    if isinstance(results.get("evaluation"), Mapping):  # a classifier has scores, no verdict
        text = _scores(results["evaluation"])
        return {"kind": "scores", "title": "Accuracy", "text": text, "progress": None}
    found = results.get("verdict")
    if not isinstance(found, Mapping):  # the run is older than verdicts
        try:
            found = judge(results)._asdict()
        except (KeyError, TypeError, ValueError):
            found = {"kind": "no verdict", "text": f"{SUMMARY} cannot be judged."}
    kind = str(found.get("kind"))
    text = str(found.get("text", ""))
    return {"kind": kind, "title": kind.capitalize(), "text": text, "progress": None}


def _scores(evaluation: Mapping[str, Any]) -> str:
    """What each head reaches in its best epoch."""
    lines = []
    for head, best in evaluation["best"].items():
        scores = ", ".join(
            f"{name} {value:.1f} %" for name, value in best.items() if name != "epoch"
        )
        lines.append(f"{head}: {scores} in its best epoch, {best['epoch']:.0f}")
    return f"{evaluation['protocol']}. {'; '.join(lines)}"


def _figures(reported: Reported) -> list[dict[str, str]]:
    """The few figures that tell most, with what they are to be compared with."""
    lines, found = reported.lines, []
    knn = next((name for line in lines for name in line if name.startswith("knn/")), None)
    if knn is not None:
        metric = knn.removeprefix("knn/")
        others = [
            f"{what} {scores[metric]:.1f}"
            for what, scores in reported.baselines["knn"].items()
            if metric in scores
        ]
        value = f"{latest(lines, knn):.1f} %"
        found.append({"name": f"kNN {metric}", "value": value, "beside": ", ".join(others)})
    loss, uniform = latest(lines, "loss"), latest(lines, "uniform_loss")
    if loss is not None:
        beside = "" if uniform is None else f"ln K {uniform:.3f}"
        found.append({"name": "Loss", "value": f"{loss:.3f}", "beside": beside})
    epochs = f"of {reported.num_epochs}"
    found.append({"name": "Epochs", "value": f"{reported.epoch}", "beside": epochs})
    speed = reported.results.get("images_per_second", latest(lines, "images_per_second"))
    if speed is not None:
        found.append({"name": "Images per second", "value": f"{speed:,.0f}", "beside": ""})
    return found


def _speed(results: Mapping[str, Any]) -> str:
    if not {"seconds", "images_per_second"} <= results.keys():
        return ""
    minutes, seconds = divmod(round(results["seconds"]), 60)
    took = f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
    return (
        f"The training took {took} {seconds:02d} s since it was last started, "
        f"{results['images_per_second']:,.0f} images/s in the mean, evaluations included."
    )


def _profile(found: Any) -> dict[str, Any] | None:
    if not isinstance(found, Mapping):
        return None
    parts = [{"name": name, **part} for name, part in found["parts"].items()]
    return {**found, "parts": parts}
