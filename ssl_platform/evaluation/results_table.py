"""The results of many evaluations side by side, and beside what was published."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_platform.config.source import Source
from ssl_platform.config.yaml_file import parse_yaml
from ssl_platform.errors import ConfigError, first_few
from ssl_platform.evaluation.results import NAME, Results, aligned
from ssl_platform.schema import flat
from ssl_platform.zoo.catalogue import Model, models

# what a figure does not depend on, or what is the user's to say
FREE = (
    "name", "output_dir", "checkpoint", "trunk", "plugins", "device", "launch", "save", "seed",
    "hooks.log", "hooks.finite", "hooks.summary", "hooks.evaluate.protocol",
    "data.path", "data.train.path", "data.val.path", "data.num_workers", "data.max_bad_fraction",
    "baselines", "pca_components", "cache",
)  # fmt: skip
NUM_NAMED = 3  # settings that differ


def results_table(folders: Iterable[Path]) -> list[str]:
    """Lines of a table of every ``results.json`` in some folders and below.

    Raises:
        ConfigError: a folder does not exist or holds no results, or a file cannot be read.
    """
    found = [(path.parent, _read(path)) for folder in folders for path in _files(folder)]
    found.sort(key=lambda item: (item[1].protocol, item[0]))
    lines = []
    for protocol, group in groupby(found, key=lambda item: item[1].protocol):
        lines += ["", protocol, *_table(list(group))]
    return lines[1:]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError([f"{folder}: no such directory (working directory: {Path.cwd()})"])
    files = sorted(path for path in folder.rglob(NAME) if path.is_file())  # a pipe never ends
    if not files:
        raise ConfigError([f"{folder}: no {NAME} in it or below; an evaluation writes one"])
    return files


def _read(path: Path) -> Results:
    try:
        found = Results.read(path.parent)
        _require_types(found)
        return found
    except (OSError, TypeError, ValueError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError([f"{path}: not the results of an evaluation ({error})"]) from error


def _require_types(found: Results) -> None:
    """Somebody else may have written the file."""
    if not (isinstance(found.protocol, str) and isinstance(found.config, str)):
        raise TypeError("protocol and config are texts")
    if not OmegaConf.is_dict(parse_yaml(found.config.encode())):
        raise TypeError("config is a mapping")
    if not isinstance(found.baselines, dict):
        raise TypeError("baselines are figures by name")
    if not (
        isinstance(found.weights, dict) and all(isinstance(v, str) for v in found.weights.values())
    ):
        raise TypeError("weights are texts by name")
    for figures in (found.figures, *found.baselines.values()):
        values = flat(figures).values() if isinstance(figures, dict) else [None]
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise TypeError("figures are numbers by what was measured and metric")


def _table(found: list[tuple[Path, Results]]) -> list[str]:
    """Of one protocol: a row for each figure, a column for each baseline that any result has."""
    baselines = list(dict.fromkeys(name for _, result in found for name in result.baselines))
    rows = [["run", "checkpoint", "figure", "result", *baselines, "published"]]
    for folder, result in found:
        published = published_beside(result)
        values = {name: flat(figures) for name, figures in result.baselines.items()}
        for figure, value in flat(result.figures).items():
            if figure.endswith(".epoch"):
                continue
            of_baselines = [_shown(values.get(name, {}).get(figure)) for name in baselines]
            source, remark = result.weights.get("source", ""), published.get(figure, "")
            rows.append([str(folder), source, figure, _shown(value), *of_baselines, remark])
    return aligned(rows)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def published_beside(result: Results) -> dict[str, str]:
    """What was published of the same weights, by figure, and whether it can be compared."""
    model = _published_model(result.weights)
    if model is None:
        return {}
    changes = {config: _differences(result.config, config) for config in model.figures}
    nearest_first = sorted(model.figures, key=lambda config: len(changes[config]))
    told = {}
    for figure, value in flat(result.figures).items():
        config = next((c for c in nearest_first if figure in model.figures[c]), None)
        told[figure] = (
            "none by this protocol"
            if config is None
            else _compared(value, model.figures[config][figure], model.tolerance, changes[config])
        )
    return told


def _published_model(weights: Mapping[str, str]) -> Model | None:
    """The model of the catalogue that weights are of, by its name or the file's digest."""
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


def _differences(config_yaml: str, published: str) -> list[str]:
    """Where a run's config is not the one that a published figure is measured with.

    What the published config leaves open (null) is not compared.
    """
    composed, _ = Source.of([f"config={published}"]).read()
    wanted, given = _plain(composed), _plain(parse_yaml(config_yaml.encode()))
    return [
        f"{key}: {given.get(key, 'not set')}, there {wanted.get(key, 'not set')}"
        for key in sorted(wanted.keys() | given.keys())
        if wanted.get(key, "not set") not in (given.get(key, "not set"), None)
        and not key.startswith(FREE)
    ]


def _plain(cfg: Any) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(cfg)
    return flat(plain)
