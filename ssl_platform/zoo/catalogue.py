"""The published models: where their files are, what they are, and what they should score."""

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ssl_platform.errors import CheckpointError, nearest
from ssl_platform.zoo.fetch import fetch

FILE = Path(__file__).with_name("catalogue.yaml")
MIRROR = "SSL_ZOO_MIRROR"  # environment variable: address of a folder with the same files


@dataclass(frozen=True)
class Model:
    """One published model.

    Attributes:
        name: of the released file, without its ending.
        url, sha256: of the file; the digest is None while it is unknown.
        format: name of the file's layout.
        trunk: name of the shipped config of its trunk, ``trunk=<this>``.
        head: options of its `PrototypeHead`.
        recipe, linear: names of the configs that train it and that measure ``top1``.
        top1: published accuracy in per cent, measured by ``protocol``.
        tolerance: how far a repetition may differ from it, in points.
        others: further published figures, by the config that measures them.
    """

    name: str
    url: str
    sha256: str | None
    format: str
    trunk: str
    head: dict[str, Any]
    recipe: str
    linear: str
    protocol: str
    top1: float
    tolerance: float
    others: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, dict[str, float]]:
        """All published figures by config, under their names in the config's results."""
        return {self.linear: {"linear (best epoch).top1": self.top1}, **self.others}

    def fetch(self) -> Path:
        """The file, from the cache, a mirror or its address.

        Raises:
            CheckpointError: it cannot be had; the message begins with the address.
        """
        return fetch(self.url, self.sha256, mirror=os.environ.get(MIRROR))


@cache
def models() -> dict[str, Model]:
    """All published models by name, in the order of the catalogue."""
    entries = yaml.safe_load(FILE.read_text())["models"]
    return {name: Model(name=name, **entry) for name, entry in entries.items()}


def model(name: str) -> Model:
    """The model of that name.

    Raises:
        CheckpointError: there is none; the message says which was meant.
    """
    if name not in models():
        raise CheckpointError(f"zoo:{name}: no such model; {nearest(name, models())}")
    return models()[name]
