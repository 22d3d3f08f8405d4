"""Read YAML files of anybody as data, and refuse those that would grow beyond the memory.

A few hundred bytes of YAML can expand to gigabytes, by aliases of aliases or references to
references. Both are counted before they are expanded.
"""

import io
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

LARGEST_FILE = 2**17  # bytes; a saved config has 5,000
MOST_VALUES = 20_000
DEEPEST = 50  # lists and mappings in one another
LONGEST = 2**20  # letters and values, all references filled in
REFERENCE = re.compile(r"\$\{\s*([\w./\[\]-]+)(?:\s*:([\w./\[\]\s,-]*))?")  # with a resolver's own

Place = tuple[str, ...]


def read_yaml(path: Path) -> Any:
    """The config that a YAML file holds, references as written.

    Raises:
        ValueError: it is no file, too large, no YAML, or expands to too much. The message is one
            line, without the path.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():  # reading a pipe waits, reading a device never ends
        raise ValueError("not a file")
    with path.open("rb") as file:
        return parse_yaml(file.read(LARGEST_FILE + 1))


def parse_yaml(data: bytes) -> Any:
    """As `read_yaml`, of what the file holds."""
    if len(data) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE:,} bytes, which no config is")
    try:
        text = data.decode("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _count(node, itertools.count(1), 0)
        config = OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:  # its message has several lines
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    require_short(OmegaConf.to_container(config))
    return config


_TOO_DEEP = f"its lists and mappings lie more than {DEEPEST} deep in one another"


def _count(node: yaml.Node | None, count: "itertools.count[int]", depth: int) -> None:
    """Count values, those behind an alias again each time; a node that holds itself is too deep."""
    if next(count) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values, when aliases are written out")
    if depth > DEEPEST:
        raise ValueError(_TOO_DEEP)
    if isinstance(node, yaml.CollectionNode):
        children = node.value
        if isinstance(node, yaml.MappingNode):
            children = itertools.chain.from_iterable(node.value)
        for child in children:
            _count(child, count, depth + 1)


def require_short(plain: Any) -> None:
    """Refuse values that are too long once their references are filled in.

    Args:
        plain: mappings, lists and values, references as written.

    Raises:
        ValueError: they are too long or too deep, or a text has a null byte.
    """
    try:
        length = _Lengths(plain).of((), plain)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if length > LONGEST:
        raise ValueError(f"its references stand for {length:,} letters, more than {LONGEST:,}")


class _Lengths:
    """The length of each place of a config with its references filled in, computed once."""

    def __init__(self, root: Any):
        self.root = root
        self.known: dict[Place, int] = {}

    def of(self, place: Place, node: Any) -> int:
        if place not in self.known:
            if isinstance(node, str) and "\0" in node:
                raise ValueError(f"{'.'.join(place)}: a null byte, which no value can have")
            self.known[place] = 0  # OmegaConf refuses a value that refers to itself
            inner = [((*place, key), child) for key, child in _children(node)]
            length = sum(self.of(*other) for other in (*inner, *self.referred(place, node)))
            self.known[place] = length + (len(node) if isinstance(node, str) else 1)
        return self.known[place]

    def referred(self, place: Place, node: Any) -> Iterator[tuple[Place, Any]]:
        """The places that a text refers to, with their values."""
        for path, arguments in REFERENCE.findall(node) if isinstance(node, str) else ():
            for target in (path, *arguments.split(",")):
                yield self.find(place, target.strip())

    def find(self, place: Place, target: str) -> tuple[Place, Any]:
        """The place that ``target`` means in ``place``, and its value; None if there is none."""
        name = target.lstrip(".")
        dots = len(target) - len(name)
        keys = (*(place[:-dots] if dots else ()), *re.findall(r"[^.\[\]]+", name))
        node = self.root
        for key in keys:
            node = dict(_children(node)).get(key)
        return keys, node


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return ((str(key), child) for key, child in node.items())
    return ((str(n), child) for n, child in enumerate(node)) if isinstance(node, list) else iter(())
