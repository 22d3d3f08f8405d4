"""What a report says beside figures and pictures: the machine, the recipe, what to type next."""

import copy
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ssl_platform
from ssl_platform import distributed
from ssl_platform.config.saved import unread_environment
from ssl_platform.config.shipped import CONFIG_DIR, runnable
from ssl_platform.config.source import PRIMARY, Source
from ssl_platform.errors import ConfigError
from ssl_platform.reports.typed import command, from_here
from ssl_platform.schema import flat

NOT_OF_THE_RECIPE = ("name", "output_dir", "recipe", "resume", "launch")
LEFT_OPEN = (None, "auto", "???")  # values that a recipe leaves to the images or the machine


def machine_facts(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that a run is made by, for ``summary.json``."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "processes": distributed.world_size(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "ssl_platform": ssl_platform.__version__,
    }
    if device.type != "cuda":
        return facts
    of_gpu = torch.cuda.get_device_properties(device)
    gpu = {"gpu": of_gpu.name, "gpu_memory_gib": round(of_gpu.total_memory / 2**30, 1)}
    return {**gpu, "cuda": torch.version.cuda, **facts}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def differences_from_recipe(config: Mapping[str, Any]) -> tuple[list[tuple[str, str, str]], str]:
    """What a run's config has other than the shipped config that it is made of.

    Args:
        config: plain values, references filled in.

    Returns:
        (key, value there, value here) for each difference, without what a recipe leaves to the
        images; and a line where the two cannot be compared, else an empty one.
    """
    recipe = config.get("recipe")
    if recipe is None:
        return [], "The config does not say which shipped recipe it was made of."
    if recipe not in runnable():
        return [], f"There is no shipped recipe {recipe} now."
    after = flat(dict(config))
    try:
        before, filled = _recipe_values(recipe, after)
    except (ConfigError, OmegaConfBaseException) as error:
        return [], f"The recipe {recipe} cannot be read: {error}"
    return [
        (key, _value(filled, key), _value(after, key))
        for key in sorted(before.keys() | after.keys())
        if key.partition(".")[0] not in NOT_OF_THE_RECIPE
        and filled.get(key) != after.get(key)
        and (key not in before or before[key] not in LEFT_OPEN)
    ], ""


def _recipe_values(recipe: str, after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a recipe as they are written, and with what it leaves open as in a run."""
    cfg = copy.deepcopy(_shipped(recipe))
    written: Any = OmegaConf.to_container(cfg)
    before = flat(written)
    for key, value in before.items():
        if value == MISSING or key == "name":
            OmegaConf.update(cfg, key, after.get(key), force_add=True)
    with unread_environment():
        filled: Any = OmegaConf.to_container(cfg, resolve=True)
    return before, flat(filled)


@cache
def _shipped(recipe: str) -> DictConfig:
    return Source(CONFIG_DIR, PRIMARY, [f"config={recipe}"], ()).read()[0]


def _value(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "not set"


def next_commands(
    run_dir: Path, config: Mapping[str, Any], *, is_over: bool
) -> list[tuple[str, str]]:
    """What can be typed next: what it does, and a command."""
    run, saved = from_here(run_dir), from_here(run_dir / "config.yaml")
    epochs = config.get("num_epochs")
    commands = []
    if not is_over:
        commands.append(("go on, if it was stopped", command(config=saved)))
    elif isinstance(epochs, int):
        longer = command(config=saved, num_epochs=str(2 * epochs))
        commands.append(("train for longer, from where it is", longer))

    train = (config.get("data") or {}).get("train") or {}
    folder = str(train.get("path") or "FOLDER")

    def with_run(config: str, **values: str) -> str:
        return command(config=config, checkpoint=run, **values)

    return [
        *commands,
        ("see the clusters of all images", with_run("analysis/clusters")),
        (
            "find near duplicates, outliers and doubtful labels",
            with_run("analysis/neighbours", data__path=folder),
        ),
        (
            "write the features of any images",
            with_run("analysis/features", data__path=folder),
        ),
        (
            "measure the kNN accuracy on any labelled images",
            with_run("benchmark/knn/folder", data__train__path="FOLDER", data__val="null"),
        ),
        ("make this page again", with_run("analysis/report")),
    ]
