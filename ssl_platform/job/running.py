"""From a config to the result of its task: the run directory, the ranks, the work of each."""

import logging
import multiprocessing
import os
import sys
import warnings
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_platform import distributed
from ssl_platform.config.options import TrainOptions, options_of
from ssl_platform.console import LegibleFormatter, show
from ssl_platform.console.working import WATCH, no_silence, working
from ssl_platform.engine.build import resolve_device
from ssl_platform.errors import ConfigError
from ssl_platform.job.check import checked
from ssl_platform.job.directory import (
    claimed,
    reasons_not_to_go_on,
    take_over_what_was_settled,
)
from ssl_platform.job.settled import images_found, settle_normalize, settle_range
from ssl_platform.launch import Job, joined_world, launcher_here, launcher_of
from ssl_platform.ops.arithmetic import arithmetic
from ssl_platform.registry import TASKS, load_components

logger = logging.getLogger(__name__)


def run(cfg: Any) -> Any:
    """See `ssl_platform.run`."""
    _refuse_to_start_within_a_start()
    with no_silence():
        with working("checking the config"):
            cfg = checked(cfg)
        return hand_over([cfg]) if runs_elsewhere(cfg) else run_here(cfg)


def _refuse_to_start_within_a_start() -> None:
    """A process that is being started reads the user's script first, and may come by here again."""
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    told = (
        "launch.processes: every process reads this script again as it starts; put the lines that "
        "run something below if __name__ == '__main__':"
    )
    sys.exit(told if os.environ.get("RANK", "0") == "0" else 1)


def runs_elsewhere(cfg: DictConfig) -> bool:
    """Whether the launcher of a checked config hands the run over to another machine."""
    return launcher_of(options_of(cfg).launch).is_elsewhere


def hand_over(cfgs: list[DictConfig]) -> list[Any]:
    """Have each run started elsewhere; those whose ``launch`` is the same are handed over together.

    Raises:
        ConfigError: a run cannot go on in its directory, or the launcher does not take it.
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
        jobs = [Job(run_here, (cfg,), options.launch, name=options_of(cfg).name) for cfg in group]
        submitted += launcher_of(options.launch).launch(jobs)
    for job in submitted:
        print(job)
    return submitted


def run_here(cfg: DictConfig) -> Any:
    """Run a checked config with the ranks of this machine, or as one of those that are there.

    Args:
        cfg: what it leaves to the images, or to the run that it goes on with, is filled in.
    """
    load_components(cfg.plugins)
    joined = joined_world()
    is_first = joined is None or joined[0] == 0
    messages = []
    if is_first:
        with working("looking at the images"):
            messages = take_over_what_was_settled(cfg) + settle_range(cfg) + settle_normalize(cfg)
    options = options_of(cfg)
    with claimed(cfg, Path(options.output_dir)) if is_first else nullcontext():
        if is_first:
            with working("looking at the images"):
                messages += images_found(options)
        if messages:
            show("\n".join(messages))
            WATCH.heard()
        device = resolve_device(options.device).type
        job = Job(work, (OmegaConf.to_yaml(cfg),), options.launch, device, options.name)
        return launcher_here(options.launch).launch([job])[0]


def work(config_yaml: str) -> Any:
    """What every rank does: the task of the config, as the first rank has settled it."""
    cfg = OmegaConf.create(distributed.broadcast_text(config_yaml))
    load_components(cfg.plugins)
    options = options_of(cfg)
    handler = logging.StreamHandler()
    handler.setFormatter(LegibleFormatter())
    handler.addFilter(_heard)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    warnings.simplefilter("ignore")  # the check has shown them
    cudnn = asdict(options.cudnn)
    is_training = isinstance(options, TrainOptions)  # which says more of itself
    with (
        no_silence(),
        nullcontext() if is_training else working(options.name),
        arithmetic(matmul_precision=options.matmul_precision, **cudnn),
    ):
        return TASKS.build(options.task)(options)


def _heard(_: logging.LogRecord) -> bool:
    WATCH.heard()
    return True
