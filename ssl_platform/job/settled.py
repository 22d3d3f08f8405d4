"""What is settled before a run begins, and kept with it: how it sees its images."""

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

# what the parts of today do otherwise than runs did that are older than these keys
YOUNGER = ("orientation", "background", "corrupt")


def go_on_as_begun(cfg: DictConfig, begun: Any, allowed: Sequence[str]) -> list[str]:
    """Have a run go on with the pixels that it began with; returns what is to be said of it.

    ``data.range=auto`` is what it was found to be then, and keys that are younger than the run are
    left out as they are there, which means what was done before there were any.

    Args:
        cfg: changed in place.
        begun: the config of the run, plain values.
        allowed: keys that the user wants changed.
    """
    before = begun.get("data") if isinstance(begun, dict) else None
    if not isinstance(before, dict) or "normalize" not in before or "data" not in cfg:
        return []
    if cfg.data.get("range") == AUTO and "range" in before:
        cfg.data.range = before["range"]
    told = []
    for key in YOUNGER:
        value = YOUNGER_THAN_SOME_RUNS[key]
        if key in before or cfg.data.get(key, value) == value or is_below(f"data.{key}", allowed):
            continue
        with open_dict(cfg):
            del cfg.data[key]
        told.append(f"data.{key}={'null' if value is None else value}")
    if not told:
        return []
    return [
        f"this run is older than some options and goes on as it began: {', '.join(told)} "
        "(resume.allow_changes permits another)"
    ]


def settle_range(cfg: DictConfig) -> list[str]:
    """Put in place of ``data.range=auto`` what a sample of the images says it is.

    Args:
        cfg: changed in place.

    Returns:
        What is to be said of it.

    Raises:
        ConfigError: the images tried do not say.
    """
    if "data" not in cfg or cfg.data.get("range") != AUTO:
        return []
    options, found = options_of(cfg), None
    assert isinstance(options, ImageJobOptions)
    for _, dataset in _sets(options.data):  # those of training may be of 8 bits alone
        try:
            found = found or found_range(look(dataset, options.seed))
        except ValueError as error:
            raise ConfigError([f"data.{error}"]) from error
    cfg.data.range = found
    if found is None:
        return ["data.range=auto: the images tried are of 8 bits, which are taken as they are"]
    told = ",".join(f"{value:g}" for value in found)
    return [f"data.range=auto: [{told}] by the images tried; it is kept with the run"]


def images_found(options: JobOptions) -> list[str]:
    """What there is to say of a job's images, see `data.look`.

    Raises:
        DataError: more of those tried are unreadable than of all may be.
    """
    if not isinstance(options, ImageJobOptions):
        return []
    data, lines = options.data, []
    is_training = isinstance(options, TrainOptions)
    transform = TRANSFORMS.build(data.transform if is_training else data.eval_transform)
    for where, dataset in _sets(data):
        found = look(dataset, options.seed)
        limit = BadImageLimit(
            data.max_bad_fraction, len(dataset), is_training and where == "data.train"
        )
        if len(found.bad) > limit.allowed:  # the job would find out later
            raise DataError(f"{where}: {limit.error(found.bad, num_tried=found.number)}")
        lines += describe(where, dataset, found, crop_size=max(transform.crop_sizes))
    return lines


def _sets(data: DataOptions) -> Iterator[tuple[str, ImageDataset]]:
    """The sets of images of a job, with what messages call them."""
    for where, node in (("data.train", data.train), ("data.val", data.val)):
        if node is not None:
            yield where, open_dataset(node, data)
