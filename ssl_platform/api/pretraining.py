"""A training by one call."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_platform.api.parts import part_of
from ssl_platform.api.trained import Trained, load
from ssl_platform.config.shipped import groups, runnable
from ssl_platform.config.source import Source
from ssl_platform.errors import ConfigError, first_line, nearest
from ssl_platform.job.check import all_checked
from ssl_platform.job.running import run

RECIPES = {"shapes": "quickstart", "fashion_mnist": "fashion_mnist"}  # those of a set of its own


def pretrain(
    data: Any,
    *,
    method: str = "swav",
    epochs: int | None = None,
    output_dir: str | Path | None = None,
    config: str | None = None,
    config_dirs: Iterable[str | Path] = (),
    **overrides: Any,
) -> Trained:
    """See `ssl_platform.pretrain`."""
    part, settings = part_of(data)
    dirs: list[str | Path]
    dirs = [config_dirs] if isinstance(config_dirs, str | Path) else list(config_dirs)
    chosen = config or _recipe(method, part, dirs)
    choices, values = _sorted(overrides)
    if part != "folder":  # which every recipe reads that has no set of its own
        choices.insert(0, f"data={part}")
    cfg, problems = Source.of([f"config={chosen}", *choices], dirs).read()
    named = {"num_epochs": epochs, "output_dir": output_dir}
    values = {key: value for key, value in named.items() if value is not None} | values
    OmegaConf.set_struct(cfg, False)  # a wrong key is found with the others
    for key, value in [*_flat({"data": settings}), *values.items()]:
        problems += _set(cfg, key, value)
    if OmegaConf.select(cfg, "launch.slurm") is not None:
        problems.append("launch.slurm: pretrain() waits for its run; ssl_platform.run submits one")
    try:
        cfg = all_checked(cfg, problems)
    except ConfigError as error:
        raise ConfigError([_in_words_of_the_call(line) for line in error.problems]) from None
    results = run(cfg)
    return replace(load(cfg.output_dir), results=results)


def _recipe(method: Any, part: str, dirs: list[str | Path]) -> str:
    """The recipe of a method for some data."""
    names = runnable(tuple(map(Path, dirs)))
    methods = sorted({name.split("/")[1] for name in names if name.startswith("pretrain/")})
    if method not in methods:
        raise ConfigError([f"method={method}: no such method; {nearest(str(method), methods)}"])
    for file in (RECIPES.get(part, part), "folder"):
        if f"pretrain/{method}/{file}" in names:
            return f"pretrain/{method}/{file}"
    known = [name for name in names if name.startswith(f"pretrain/{method}/")]
    raise ConfigError(
        [f"method={method}: no recipe for any folder; config=... {nearest('', known)}"]
    )


def _sorted(overrides: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Overrides that choose a part of the config, and values by dotted key."""
    parts = set(groups()) - {"data"}
    chosen = {key: v for key, v in overrides.items() if key in parts and isinstance(v, str)}
    rest = {key: value for key, value in overrides.items() if key not in chosen}
    return [f"{key}={value}" for key, value in chosen.items()], dict(_flat(rest))


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(cfg: DictConfig, key: str, value: Any) -> list[str]:
    """Set a value; returns why it cannot be set."""
    try:
        OmegaConf.update(cfg, key, str(value) if isinstance(value, Path) else value)
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        return [f"{key}={value}: {first_line(error)}"]
    return []


def _in_words_of_the_call(line: str) -> str:
    """A line of the check, which the command line words for itself."""
    return line.replace("num_epochs=", "epochs=", 1) if line.startswith("num_epochs=") else line
