"""What a config leaves to the channels of its images, and what of it does not fit them."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from ssl_platform.data.crops.normalize import AUTO
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.pixels import COLOURS, GREY
from ssl_platform.errors import counted
from ssl_platform.registry import TRUNKS


def fit_channels(
    cfg: DictConfig, given: Mapping[str, Any], datasets: Mapping[str, ImageDataset]
) -> list[str]:
    """Fill in the number of channels, where ``data.channels`` and ``trunk.in_channels`` are null.

    Args:
        cfg: changed in place.
        given: the config before anything was taken from a checkpoint, plain values.
        datasets: those that could be opened, by their place in the config.

    Returns:
        One line for everything that does not fit the images.
    """
    data = cfg.get("data")
    if not isinstance(data, DictConfig) or "train" not in data:
        return []
    # a checkpoint's run says what becomes of files; other sets have the channels that they have
    if given["data"].get("channels") is None and "data.train" in datasets:
        _fill_in(cfg, "data.channels", datasets["data.train"].channels)
    channels = data.get("channels")
    if not isinstance(channels, int) or channels < 1:  # which is said where types are looked at
        return []
    cures = {
        "data.train": "data.channels=null takes theirs",
        "data.val": "it has to be the same for data.train and data.val",
    }
    problems = [
        f"data.channels={channels}: the images of {where}, {type(dataset).__name__}, have "
        f"{dataset.channels}; {cures[where]}"
        for where, dataset in datasets.items()
        if dataset.channels != channels
    ]
    if given["data"].get("normalize") == AUTO and not _fits(data.normalize, channels):
        data.normalize = AUTO
    problems = problems or _fit_trunk(cfg, channels, given.get("trunk") is None)
    return problems or _fit_normalize(data, channels)


def _fit_trunk(cfg: DictConfig, channels: int, is_of_checkpoint: bool) -> list[str]:
    trunk = cfg.get("trunk")
    if not isinstance(trunk, DictConfig):
        return []
    if trunk.get("in_channels") is None and not _has_option(trunk.get("name")):
        with open_dict(trunk):
            trunk.pop("in_channels", None)  # of the part whose name was set to another trunk's
        return []
    # a config that is older than the option goes on as it is, with images of three channels
    if "in_channels" not in trunk and channels == COLOURS:
        return []
    if trunk.get("in_channels") is None:
        _fill_in(cfg, "trunk.in_channels", channels)
    taken = trunk.in_channels
    if not isinstance(taken, int) or taken == channels:
        return []
    if is_of_checkpoint:
        return [
            f"checkpoint={cfg.get('checkpoint')}: its trunk takes images of "
            f"{counted(taken, 'channel')}, these have {channels}; set data.channels={taken}, or "
            f"choose weights for {channels}"
        ]
    return [
        f"trunk.in_channels={taken}: the images have {counted(channels, 'channel')}; null takes "
        f"those of the images, data.channels={taken} brings files to {taken}"
    ]


def _has_option(trunk: Any) -> bool:
    return trunk in TRUNKS.names() and "in_channels" in TRUNKS.schema(trunk).annotations


def _fill_in(cfg: DictConfig, key: str, channels: int) -> None:
    OmegaConf.update(cfg, key, int(channels), force_add=True)


def _fit_normalize(data: DictConfig, channels: int) -> list[str]:
    """Grey is normalised by the averages of what is there for three colours."""
    normalize: Any = data.get("normalize")
    if normalize == AUTO or not isinstance(normalize, DictConfig):
        return []
    given = {key: normalize.get(key) for key in ("mean", "std")}
    counts = {len(values) for values in given.values() if isinstance(values, ListConfig)}
    if counts == {COLOURS} and channels == GREY:
        for key, values in given.items():
            normalize[key] = [round(sum(values) / COLOURS, 6)]
        return []
    if counts <= {channels}:
        return []
    return [
        f"data.normalize={{mean: {given['mean']}, std: {given['std']}}}: a number of each for each "
        f"of the {counted(channels, 'channel')}; data.normalize=auto measures them on a sample of "
        "the images"
    ]


def _fits(normalize: Any, channels: int) -> bool:
    return isinstance(normalize, DictConfig) and len(normalize.mean) == channels
