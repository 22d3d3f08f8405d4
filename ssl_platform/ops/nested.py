"""Nested states: dicts, lists and tuples of tensors and plain values."""

from collections.abc import Callable, Iterator
from typing import Any

Path = tuple[Any, ...]  # keys of dicts and places in lists and tuples, from the outside in


def leaves(state: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All that is no dict, list or tuple, each with its path."""
    is_sequence = type(state) in (list, tuple)
    if not is_sequence and not isinstance(state, dict):
        yield path, state
        return
    for key, value in enumerate(state) if is_sequence else state.items():
        yield from leaves(value, (*path, key))


def map_leaves(function: Callable[[Path, Any], Any], state: Any, path: Path = ()) -> Any:
    """The same state with ``function(path, leaf)`` in the place of each leaf."""
    if isinstance(state, dict):
        return {key: map_leaves(function, value, (*path, key)) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(map_leaves(function, v, (*path, n)) for n, v in enumerate(state))
    return function(path, state)


def name_of(path: Path) -> str:
    """A path in words: its parts with dots between."""
    return ".".join(map(str, path))
