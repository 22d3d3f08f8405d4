"""Self-supervised learning by clustering: SwAV and its relatives, from YAML to a trained trunk."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

__version__ = "0.1.0"


def run(cfg: "DictConfig | Mapping[str, Any]") -> Any:
    """Run what the command line would run for this config, and return its result.

    Args:
        cfg: from `ssl_platform.config.compose`, or plain nested mappings like it. What was changed
            since is checked before anything starts, with the lines of the command line.

    Returns:
        What the task returns; for a training, the figures that its hooks measured.

    Raises:
        PlatformError: whatever the command line would report in words.
    """
    from ssl_platform.job.running import run as run_config

    return run_config(cfg)
