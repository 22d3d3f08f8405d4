"""From a config to the result of its task: the run directory, the ranks, the work of each."""

import logging
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_platform.build import options_of, resolve_device
from ssl_platform.errors import ConfigError
from ssl_platform.launch import Submitted, joined_world, launch, submit
from ssl_platform.registry import TASKS, load_components
from ssl_platform.run_lock import locked

# what may differ when a run is started again in its directory
FREE_TO_CHANGE = (
    "hooks",
    "launch.timeout_minutes",
    "launch.stop_seconds",
    "launch.max_restarts",
    "launch.slurm",
    "launch.threads",
    "data.num_workers",
    "save",
)


def run(cfg: DictConfig) -> Any:
    """See `ssl_platform.run`."""
    if options_of(cfg).launch.slurm is not None:
        return submit_all([cfg])
    return run_here(OmegaConf.to_yaml(cfg))


def submit_all(cfgs: list[DictConfig]) -> list[Submitted]:
    """Submit a SLURM job for each run; those that ask the same of it become an array."""
    alike: dict[str, list[DictConfig]] = {}
    for cfg in cfgs:
        claim(cfg, Path(options_of(cfg).output_dir))
        alike.setdefault(str(options_of(cfg).launch), []).append(cfg)
    submitted = []
    for group in alike.values():
        options = options_of(group[0])
        jobs = [(OmegaConf.to_yaml(cfg),) for cfg in group]
        submitted += submit(run_here, jobs, options.launch, name=options.name)
    for job in submitted:
        print(f"submitted job {job.job_id}, log in {job.log}")
    return submitted


def run_here(config_yaml: str) -> Any:
    """Run a checked config with the ranks of this machine, or as one of those that are there."""
    cfg: Any = OmegaConf.create(config_yaml)
    load_components(cfg.plugins)
    options = options_of(cfg)
    device = resolve_device(options.device)
    joined = joined_world()
    with ExitStack() as stack:
        if joined is None or joined[0] == 0:
            output_dir = Path(options.output_dir)
            stack.enter_context(locked(output_dir))
            claim(cfg, output_dir)
        return launch(work, (config_yaml,), options.launch, device=device.type)


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
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": v for inner, v in _flat(value).items()}
        else:
            flat[str(key)] = value
    return flat
