"""Configs of runs that were saved before some keys were there."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from ssl_platform.config.shipped import CONFIG_DIR, groups
from ssl_platform.config.source import PRIMARY, Source

# of data: what was done by runs that are older than the key
BEFORE_THERE_WERE_OPTIONS = {
    "range": None,
    "orientation": "ignore",
    "background": None,
    "corrupt": "use",
    "max_pixels": 50_000_000,
    "max_bytes": 256 * 2**20,
}


def with_defaults(saved: Any) -> tuple[dict[str, Any], list[str]]:
    """Fill in what a saved config lacks because the key is younger than it: today's default.

    That is for the keys of every job and of its task. The parts with their components are as they
    were saved, for no default could say what a component has done then; of ``data`` it is known.

    Args:
        saved: plain values, references as written.

    Returns:
        A new config, and what was filled in, each as ``key=value``.

    Raises:
        ValueError: it is no config of a job.
    """
    task = saved.get("task") if isinstance(saved, Mapping) else None
    if not isinstance(task, Mapping) or not isinstance(task.get("name"), str):
        raise ValueError("it names no task")
    filled, told = _filled(saved, _defaults_of(task["name"]))
    data = filled.get("data")
    if isinstance(data, Mapping) and "normalize" in data:
        filled["data"], inner = _filled(data, BEFORE_THERE_WERE_OPTIONS, "data.")
        told += inner
    return filled, told


@cache
def _defaults_of(task: str) -> dict[str, Any]:
    """Without the parts; those of all jobs alone where the task is not one of ours."""
    files = (f for f in groups()["task"] if _task_name(CONFIG_DIR / "task" / f"{f}.yaml") == task)
    file = next(files, None)
    overrides = ["~config", f"task={file}" if file else "~task"]
    composed: Any = OmegaConf.to_container(Source(CONFIG_DIR, PRIMARY, [], ())._compose(overrides))
    parts = groups().keys() - {"launch"}  # which holds no component
    return {key: value for key, value in composed.items() if key not in parts}


def _task_name(path: Path) -> str | None:
    node: Any = OmegaConf.load(path)
    return (node.get("task") or {}).get("name")


def _filled(
    saved: Mapping[str, Any], defaults: Mapping[str, Any], where: str = ""
) -> tuple[dict[str, Any], list[str]]:
    filled, told = dict(saved), []
    for key, default in defaults.items():
        if key not in saved:
            if default != MISSING:
                filled[key] = default
                told.append(f"{where}{key}={default}")
        elif isinstance(saved[key], Mapping) and _is_section(default):
            filled[key], inner = _filled(saved[key], default, f"{where}{key}.")
            told += inner
    return filled, told


def _is_section(node: Any) -> bool:
    """Whether a node has options of its own, and is no collection of components."""
    return isinstance(node, Mapping) and not any(isinstance(v, Mapping) for v in node.values())
