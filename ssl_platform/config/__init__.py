"""Configs: composed by Hydra from YAML and the command line, and every key that they may have."""

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig


def compose(overrides: list[str], config_dirs: Iterable[str | Path] = ()) -> DictConfig:
    """Compose the config of a run and check all of it.

    Args:
        overrides: as on the command line: ``["config=pretrain/swav/quickstart", "seed=1"]``.
        config_dirs: further directories to look for configs in.

    Raises:
        ConfigError: everything that is wrong, one line per problem.
    """
    # the one arrow from here upwards: this package is also where users look for the checked config
    from ssl_platform.job.check import composed

    return composed(overrides, config_dirs)
