"""From a config to the result of its task: the run directory, the ranks, the work of each."""

import logging
import multiprocessing
import os
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_platform import distributed
from ssl_platform.config.options import options_of
from ssl_platform.console import LegibleFormatter, show
from ssl_platform.engine.build import resolve_device
from ssl_platform.errors import ConfigError
from ssl_platform.job.check import checked
from ssl_platform.job.directory import (
    claimed,
    reasons_not_to_go_on,
    take_over_what_was_settled,
)
from ssl_platform.job.settled import images_found, settle_range
from ssl_platform.launch import Submitted, joined_world, launch, submit
from ssl_platform.registry import TASKS, load_components

logger = logging.getLogger(__name__)


def run(cfg: Any) -> Any:
    """See `ssl_platform.run`."""
    _refuse_to_start_within_a_start()
    cfg = checked(cfg)
    if options_of(cfg).launch.slurm is not None:
        return submit_all([cfg])
    return run_here(OmegaConf.to_yaml(cfg))


def _refuse_to_start_within_a_start() -> None:
    """A process that is being started reads the user's script first, and may come by here again."""
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    told = (
        "launch.processes: every process reads this script again as it starts; put the lines that "
        "run something below if __name__ == '__main__':"
    )
    sys.exit(told if os.environ.get("RANK", "0") == "0" else 1)


def submit_all(cfgs: list[DictConfig]) -> list[Submitted]:
    """Submit a SLURM job for each run; those that ask the same of it become an array.

    Raises:
        ConfigError: a run cannot go on in its directory, or SLURM does not take the job.
    """
    for cfg in cfgs:
        take_over_what_was_settled(cfg)
    problems = [
        problem
        for cfg in cfgs
        for problem in reasons_not_to_go_on(cfg, Path(options_of(cfg).output_dir))
    ]
    if problems:
        raise ConfigError(problems)
    alike: dict[str, list[DictConfig]] = {}
    for cfg in cfgs:
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
            told = [*take_over_what_was_settled(cfg), *settle_range(cfg, options_of(cfg))]
            stack.enter_context(claimed(cfg, Path(options.output_dir)))
            told += images_found(options_of(cfg))
            if told:
                show("\n".join(told))
        settled = OmegaConf.to_yaml(cfg)
        return launch(work, (settled,), options.launch, device=device.type)


def work(config_yaml: str) -> Any:
    """What every rank does: run the task of the config, as the first rank has settled it."""
    cfg = OmegaConf.create(distributed.broadcast_text(config_yaml))
    load_components(cfg.plugins)
    options = options_of(cfg)
    handler = logging.StreamHandler()
    handler.setFormatter(LegibleFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    warnings.simplefilter("ignore")  # the check has shown them
    return TASKS.build(options.task)(options)
