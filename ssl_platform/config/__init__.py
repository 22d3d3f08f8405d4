"""Configs: composed by Hydra from YAML and the command line, and every key that they may have."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_platform.console.working import working
from ssl_platform.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(overrides: list[str], config_dirs: Iterable[str | Path] = ()) -> "DictConfig":
    """Compose the config of a run and check all of it.

    Args:
        overrides: as on the command line: ``["config=pretrain/swav/quickstart", "seed=1"]``.
        config_dirs: further directories to look for configs in.

    Raises:
        ConfigError: everything that is wrong, one line per problem.
    """
    from ssl_platform.config.source import Source

    cfg, problems = Source.of(overrides, config_dirs).read()
    # The one import from further up: users look for the checked config here. It needs torch, and
    # without it a misspelt name is found.
    from ssl_platform.job.check import all_checked

    return all_checked(cfg, problems)


def check_sweep(overrides: list[str], config_dirs: Iterable[str | Path] = ()) -> None:
    """Compose and check every combination of a sweep.

    Raises:
        ConfigError: the problems of all combinations, each line once.
    """
    from ssl_platform.config.search import is_search
    from ssl_platform.config.source import sweep_jobs
    from ssl_platform.job.objective import problems_of_searched

    problems: list[str] = []
    jobs = list(sweep_jobs(overrides, config_dirs))
    with working("checking", len(jobs), "combinations") as work:
        for job in jobs:
            try:
                cfg = compose(job, config_dirs)
                problems += problems_of_searched(cfg) if is_search(overrides) else []
            except ConfigError as error:
                problems += error.problems
            work.advance()
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
