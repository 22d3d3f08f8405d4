"""What is decided before a run starts and saved with it: how its images become pixels."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, open_dict

from ssl_platform.config.options import (
    DataOptions,
    ImageJobOptions,
    JobOptions,
    TrainOptions,
    is_below,
    options_of,
)
from ssl_platform.config.saved import YOUNGER_THAN_SOME_RUNS
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.pixels import AUTO
from ssl_platform.data.loading.batch_reader import BadImageLimit
from ssl_platform.data.look import describe, found_range, look
from ssl_platform.engine.build import open_dataset
from ssl_platform.errors import ConfigError, DataError
from ssl_platform.registry import TRANSFORMS

logger = logging.getLogger(__name__)

# keys whose values in today's parts differ from what runs did that are older than the keys
CHANGED_SINCE = ("orientation", "background", "corrupt")


def go_on_as_begun(cfg: DictConfig, begun: Any, allowed: Sequence[str]) -> list[str]:
    """Have a run go on with the pixels that it began with.

    ``data.range=auto`` becomes the range that was found then. Keys that are newer than the run are
    removed, which means what was done before the keys existed.

    Args:
        cfg: changed in place.
        begun: the config of the run, plain values.
        allowed: keys that the user wants changed.

    Returns:
        A message for the user about the keys, or nothing.
    """
    before = begun.get("data") if isinstance(begun, dict) else None
    if not isinstance(before, dict) or "normalize" not in before or "data" not in cfg:
        return []
    if cfg.data.get("range") == AUTO and "range" in before:
        cfg.data.range = before["range"]
    kept = []
    for key in CHANGED_SINCE:
        value = YOUNGER_THAN_SOME_RUNS[key]
        if key in before or cfg.data.get(key, value) == value or is_below(f"data.{key}", allowed):
            continue
        with open_dict(cfg):
            del cfg.data[key]
        kept.append(f"data.{key}={'null' if value is None else value}")
    message = f"this run is older than some options and goes on as it began: {', '.join(kept)} "
    return [f"{message}(resume.allow_changes permits another)"] if kept else []


def settle_range(cfg: DictConfig) -> list[str]:
    """Replace ``data.range=auto`` in ``cfg`` by the range of a sample of the images.

    Returns:
        A message for the user, or nothing.

    Raises:
        ConfigError: the sample does not tell the range.
    """
    if "data" not in cfg or cfg.data.get("range") != AUTO:
        return []
    options, value_range = options_of(cfg), None
    assert isinstance(options, ImageJobOptions)
    for _, dataset in _sets(options.data):  # those of training may be of 8 bits alone
        try:
            value_range = value_range or found_range(look(dataset, options.seed))
        except ValueError as error:
            raise ConfigError([f"data.{error}"]) from error
    cfg.data.range = value_range
    if value_range is None:
        return ["data.range=auto: the images tried are of 8 bits, which are taken as they are"]
    ends = ",".join(f"{value:g}" for value in value_range)
    return [f"data.range=auto: [{ends}] by the images tried; it is kept with the run"]


def images_found(options: JobOptions) -> list[str]:
    """Messages for the user about a job's images, see `data.look`.

    Raises:
        DataError: more images of the sample are unreadable than of all images may be.
    """
    if not isinstance(options, ImageJobOptions):
        return []
    data, lines = options.data, []
    is_training = isinstance(options, TrainOptions)
    transform = TRANSFORMS.build(data.transform if is_training else data.eval_transform)
    for where, dataset in _sets(data):
        sample = look(dataset, options.seed)
        limit = BadImageLimit(
            data.max_bad_fraction, len(dataset), is_training and where == "data.train"
        )
        if len(sample.bad) > limit.allowed:  # the job would stop later
            raise DataError(f"{where}: {limit.error(sample.bad, num_tried=sample.number)}")
        lines += describe(where, dataset, sample, crop_sizes=transform.crop_sizes)
    return lines


def _sets(data: DataOptions) -> Iterator[tuple[str, ImageDataset]]:
    """The data sets of a job, with the keys that messages name them by."""
    for where, node in (("data.train", data.train), ("data.val", data.val)):
        if node is not None:
            yield where, open_dataset(node, data)
