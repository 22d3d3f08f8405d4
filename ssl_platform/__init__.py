"""Self-supervised learning by clustering: SwAV and its relatives, from YAML to a trained trunk."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from omegaconf import DictConfig

    from ssl_platform.api.trained import Trained

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


def pretrain(
    data: "str | Path",
    *,
    method: str = "swav",
    epochs: int | None = None,
    output_dir: "str | Path | None" = None,
    config: str | None = None,
    config_dirs: "Iterable[str | Path]" = (),
    **overrides: Any,
) -> "Trained":
    """Train a trunk, or go on with a training that was stopped, and open what it has learned.

    Args:
        data: a folder of images, a file that lists them, or the name of a part of ``configs/data``
            such as ``"shapes"``.
        method: ``"swav"``, ``"deepcluster_v2"``, ``"sela_v2"``, or a folder of
            ``configs/config/pretrain`` of yours.
        epochs: passes over the images; by default the recipe's.
        output_dir: where the run is kept, and found again by the same call; by default
            ``runs/<config>``, see the option ``name``.
        config: a recipe such as ``"pretrain/swav/rn50_200ep_bs256"``; by default the one for
            these data.
        config_dirs: further directories with configs.
        overrides: every other option: ``seed=1``, ``trunk="resnet50"``, ``optimizer={"lr": 0.1}``.

    Returns:
        The trained model, with ``results``, as `load` gives it.

    Raises:
        PlatformError: whatever the command line would report in words; a wrong argument before
            anything is written.
    """
    from ssl_platform.api.pretraining import pretrain as pretrain_run

    return pretrain_run(
        data,
        method=method,
        epochs=epochs,
        output_dir=output_dir,
        config=config,
        config_dirs=config_dirs,
        **overrides,
    )


def load(source: "str | Path", *, plugins: "Iterable[str]" = ()) -> "Trained":
    """Open a trained model: trunk, heads, the transform of its images, and its config.

    Args:
        source: ``runs/<name>`` or one of its checkpoints; a file of weights, an address or
            ``zoo:NAME`` as for ``checkpoint=``.
        plugins: modules with components of the run. Its own list is not imported: it is the code
            of whoever made the directory.

    Raises:
        CheckpointError: there is no such thing, or it cannot be built.
        ConfigError: a plug-in cannot be imported.
    """
    from ssl_platform.api.trained import load as load_trained

    return load_trained(source, plugins)
