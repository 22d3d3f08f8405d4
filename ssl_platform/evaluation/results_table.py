"""The results of many evaluations side by side, and beside what was published; and of trainings."""

from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_platform.config.options import is_below
from ssl_platform.config.source import Source
from ssl_platform.config.yaml_file import parse_yaml
from ssl_platform.errors import ConfigError, first_few
from ssl_platform.evaluation.results import NAME, Results, aligned
from ssl_platform.evaluation.trainings_table import METRICS, trainings_table
from ssl_platform.schema import flat
from ssl_platform.zoo.catalogue import Model, models

# keys on which a figure does not depend, or which are the user's to choose
FREE = (
    "name", "output_dir", "checkpoint", "weights", "evaluate", "trunk", "plugins", "device",
    "launch", "save", "seed", "metrics", "loggers",
    "hooks.log", "hooks.finite", "hooks.summary", "hooks.evaluate.protocol",
    "data.path", "data.train.path", "data.val.path", "data.num_workers", "data.max_bad_fraction",
    "baselines", "pca_components", "cache",
)  # fmt: skip
NOT_SET = "not set"
NUM_NAMED = 3  # settings that differ


def results_table(folders: Iterable[Path]) -> list[str]:
    """Lines of tables of every training and every ``results.json`` in some folders and below.

    A training that is an evaluation is shown as one once it has results.

    Raises:
        ConfigError: a folder does not exist or holds neither, or a file cannot be read.
    """
    found = [path for folder in folders for path in _files(folder)]
    runs = [(path.parent, _read(path)) for path in found if path.name == NAME]
    runs.sort(key=lambda run: (run[1].protocol, run[0]))
    with_results = {folder for folder, _ in runs}
    trainings = {path.parent for path in found if path.name == METRICS} - with_results
    lines = trainings_table(sorted(trainings))
    for protocol, group in groupby(runs, key=lambda run: run[1].protocol):
        lines += [*([""] if lines else []), protocol, *_table(list(group))]
    return lines or ["no run has a figure yet"]


def has_results(folder: Path) -> bool:
    """Whether a run has written what the tables are made of."""
    return any((folder / name).is_file() for name in (NAME, METRICS))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError([f"{folder}: no such directory (working directory: {Path.cwd()})"])
    names = (NAME, METRICS)
    found = sorted(path for name in names for path in folder.rglob(name))
    files = [path for path in found if path.is_file()]  # a pipe never ends
    if not files:
        raise ConfigError(
            [
                f"{folder}: no {NAME} in it or below; an evaluation writes one, a training writes "
                f"{METRICS}"
            ]
        )
    return files


def _read(path: Path) -> Results:
    try:
        results = Results.read(path.parent)
        _settings(parse_yaml(results.config.encode()))
        return results
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError([f"{path}: not the results of an evaluation ({error})"]) from error


def _table(runs: list[tuple[Path, Results]]) -> list[str]:
    """Of one protocol: a row for each figure, a column for each baseline that any run has."""
    baselines = list(dict.fromkeys(name for _, results in runs for name in results.baselines))
    rows = [["run", "checkpoint", "figure", "result", *baselines, "published"]]
    for folder, results in runs:
        published = published_beside(results)
        columns = [flat(results.baselines.get(name, {})) for name in baselines]
        for figure, value in flat(results.figures).items():
            if not figure.endswith(".epoch"):
                values = [f"{column[figure]:.2f}" if figure in column else "" for column in columns]
                source, remark = _source(results.weights), published.get(figure, "")
                rows.append([str(folder), source, figure, f"{value:.2f}", *values, remark])
    return aligned(rows)


def _source(weights: dict[str, str]) -> str:
    """Where weights are from, and whose of a run with a teacher they are."""
    whose = f" ({weights['whose']})" if "whose" in weights else ""
    return f"{weights.get('source', '')}{whose}"


def published_beside(results: Results) -> dict[str, str]:
    """The published figure of the same weights, by figure, and whether it can be compared."""
    model = _published_model(results.weights)
    if model is None:
        return {}
    changes = {config: _differences(results.config, config) for config in model.figures}
    fewest_changes_first = sorted(model.figures, key=lambda config: len(changes[config]))
    remarks = {}
    for figure, value in flat(results.figures).items():
        config = next((c for c in fewest_changes_first if figure in model.figures[c]), None)
        remarks[figure] = (
            "none by this protocol"
            if config is None
            else _compared(value, model.figures[config][figure], model.tolerance, changes[config])
        )
    return remarks


def _published_model(weights: dict[str, str]) -> Model | None:
    """The model of the catalogue with these weights, by its name or the file's digest."""
    for name, model in models().items():
        if weights.get("source") == f"zoo:{name}":
            return model
        if model.sha256 is not None and weights.get("sha256") == model.sha256:
            return model
    return None


def _compared(value: float, published: float, tolerance: float, changes: list[str]) -> str:
    if changes:
        named = first_few(changes, NUM_NAMED, between="; ")
        return f"{published} by another protocol ({named})"
    difference = value - published
    verdict = "within" if abs(difference) <= tolerance else "NOT within"
    return f"{published} ({difference:+.2f}, {verdict} {tolerance})"


def _differences(config: str, published: str) -> list[str]:
    """Where a run's config, as YAML, is not the one that a published figure is measured with.

    What the published config leaves open (null) is not compared.
    """
    wanted, given = _published_settings(published), _settings(parse_yaml(config.encode()))
    return [
        f"{key}: {given.get(key, NOT_SET)}, there {wanted.get(key, NOT_SET)}"
        for key in sorted(wanted.keys() | given.keys())
        if wanted.get(key, NOT_SET) not in (given.get(key, NOT_SET), None)
        and not is_below(key, FREE)
    ]


@cache
def _published_settings(config: str) -> dict[str, Any]:
    composed, _ = Source.of([f"config={config}"]).read()
    return _settings(composed)


def _settings(cfg: Any) -> dict[str, Any]:
    """The values of a config by dotted key.

    Raises:
        ValueError: it is a list.
    """
    values: Any = OmegaConf.to_container(cfg)
    if not isinstance(values, dict):
        raise ValueError("config: no keys and values")
    return flat(values)
