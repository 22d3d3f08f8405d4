"""From a config to the result of its task: the run directory, the ranks, the work of each."""

import logging
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_platform.build import options_of, resolve_device
from ssl_platform.errors import ConfigError
from ssl_platform.launch import joined_world, launch
from ssl_platform.registry import TASKS, load_components
from ssl_platform.schema import flat

# what may differ when a run is started again in its directory
FREE_TO_CHANGE = (
    "hooks",
    "launch.timeout_minutes",
    "launch.threads",
    "data.num_workers",
    "save",
)


def run(cfg: DictConfig) -> Any:
    """See `ssl_platform.run`."""
    options = options_of(cfg)
    joined = joined_world()
    if joined is None or joined[0] == 0:
        claim(cfg, Path(options.output_dir))
    device = resolve_device(options.device)
    return launch(work, (OmegaConf.to_yaml(cfg),), options.launch, device=device.type)


def work(config_yaml: str) -> Any:
    """What every rank does: run the task of the config."""
    cfg = OmegaConf.create(config_yaml)
    load_components(cfg.plugins)
    options = options_of(cfg)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warnings.simplefilter("ignore")  # the check has shown them
    return TASKS.build(options.task)(options)


def claim(cfg: DictConfig, output_dir: Path) -> None:
    """Make the run directory and keep the config in it.

    References to the environment stay references, so that no secret of it is written.

    Raises:
        ConfigError: the directory holds a run with other settings, or cannot be written.
    """
    path = output_dir / "config.yaml"
    if path.exists():
        changes = _differences(OmegaConf.load(path), cfg)
        if changes:
            raise ConfigError(
                [
                    f"output_dir={output_dir}: holds a run with other settings; give this one its "
                    "own name=..., or remove the directory",
                    *changes,
                ]
            )
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(OmegaConf.to_yaml(cfg))
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            [f"output_dir={output_dir}: cannot be written ({error.strerror})"]
        ) from error


def _differences(saved: Any, new: DictConfig) -> list[str]:
    before, after = _flat(saved), _flat(new)
    return [
        f"{key}: {before.get(key, 'not set')} there, {after.get(key, 'not set')} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(FREE_TO_CHANGE)
    ]


def _flat(cfg: Any) -> dict[str, Any]:
    """Plain values by dotted path."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    return flat(plain)
