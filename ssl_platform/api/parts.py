"""The data of a training by one word: a folder, a list of images, or a part of configs/data."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_platform.config.shipped import CONFIG_DIR, files_in
from ssl_platform.config.source import Source
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.decoding.pixels import PixelOptions
from ssl_platform.data.for_torch import CropsTransform, EvalTransform, TorchImages
from ssl_platform.errors import ConfigError, first_line, kind_of, nearest
from ssl_platform.registry import DATASETS, TRANSFORMS, Registry, load_components
from ssl_platform.schema import dataclass_schema


def part_of(data: Any) -> tuple[str, dict[str, Any]]:
    """The part of ``configs/data`` that reads some data, and what is to be set in it.

    Args:
        data: name of a part (``shapes``, ``cifar10``), a folder of images, or a file that lists
            them.

    Raises:
        ConfigError: there is nothing of that name.
    """
    names = files_in(CONFIG_DIR / "data")
    if not isinstance(data, str | os.PathLike) or not str(data):
        given = "''" if data == "" else kind_of(data)
        raise ConfigError(
            [
                f"data: a folder of images, a file that lists them, or the name of a "
                f"set such as 'shapes', not {given}"
            ]
        )
    if isinstance(data, str) and data in names:
        return data, {}
    path = Path(data).expanduser()
    if path.is_dir():
        return "folder", {"train": {"path": str(path)}}
    if path.is_file():
        return "list", {"train": {"path": str(path)}}
    raise ConfigError(
        [
            f"data={data}: no such folder or list of images (working directory: {Path.cwd()}), and "
            f"no set of that name; {nearest(str(data), names)}"
        ]
    )


@dataclass(frozen=True)
class DataPart:
    """A part of ``configs/data``, for a training loop of one's own.

    Attributes:
        name: of the part.
        options: all that it says, with what was changed.
    """

    name: str
    options: dict[str, Any]

    @classmethod
    def of(cls, data: Any, changes: Mapping[str, Any] | None = None) -> "DataPart":
        """The part that reads ``data``, see `part_of`; ``changes`` are nested as in YAML.

        Raises:
            ConfigError: there is no such data, or a change does not fit.
        """
        load_components()
        name, settings = part_of(data)
        cfg, _ = Source(CONFIG_DIR, f"data/{name}", [], ()).read()
        OmegaConf.set_struct(cfg, False)  # a wrong key is found with the others
        try:
            merged = OmegaConf.merge(cfg.data, settings, dict(changes or {}))
            plain: Any = OmegaConf.to_container(merged, resolve=True)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError([f"data={data}: {first_line(error)}"]) from error
        return cls(name, plain)

    def images(self, transform: CropsTransform, split: str) -> TorchImages:
        """The images of ``train`` or ``val``.

        Raises:
            ConfigError: there is no such split, or the set cannot be opened.
        """
        node = self.options.get(split) if split in ("train", "val") else None
        if node is None:
            have = [name for name in ("train", "val") if self.options.get(name)]
            raise ConfigError([f"split={split}: data={self.name} has {' and '.join(have)}"])
        dataset = self._built(DATASETS, split)
        dataset.pixels = self.pixels
        return TorchImages(dataset, transform)

    @property
    def pixels(self) -> PixelOptions:
        """How files become 8 bits."""
        return PixelOptions.of(self.options)

    @property
    def normalize(self) -> Normalize:
        """Mean and standard deviation of the channels."""
        return Normalize(**dataclass_schema(Normalize).convert(self.options["normalize"]))

    def crops(self) -> CropsTransform:
        """The random crops of a training image."""
        return CropsTransform(self._built(TRANSFORMS, "transform"), self.normalize, self.pixels)

    def centre(self) -> EvalTransform:
        """The crop of an evaluation."""
        return EvalTransform(self._built(TRANSFORMS, "eval_transform"), self.normalize, self.pixels)

    def _built(self, registry: Registry, key: str) -> Any:
        node = self.options[key]
        if problems := registry.problems(node, where=key):
            raise ConfigError(problems)
        try:
            return registry.build(node)
        except ValueError as error:
            raise ConfigError([f"{key}.{line}" for line in str(error).splitlines()]) from error
