"""The YAML file of a plan: what was chosen, each line with its reason."""

from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from ssl_platform.config.shipped import groups
from ssl_platform.console import one_line
from ssl_platform.start.rules import Choice

PARENT = "/config/pretrain/swav/folder"
WIDTH = 44  # letters before a comment


def recipe(choices: Sequence[Choice], header: Iterable[str]) -> str:
    """A runnable file, based on `PARENT`.

    Args:
        header: lines of comment on top.
    """
    parts = set(groups())
    chosen = [choice for choice in choices if choice.key in parts]
    lines = ["# @package _global_", *(f"# {one_line(line)}" for line in header), "defaults:"]
    lines.append(f"  - {PARENT}")
    lines += [_line(f"  - override /{c.key}: {c.value}", c) for c in chosen]
    lines.append("  - _self_")
    tree: dict[str, Any] = {}
    for choice in choices:
        if choice.key not in parts:
            *above, last = choice.key.split(".")
            node = tree
            for name in above:
                node = node.setdefault(name, {})
            node[last] = choice
    return "\n".join([*lines, *_nested(tree, 0)]) + "\n"


def _nested(tree: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for name, node in tree.items():
        start = f"{'  ' * depth}{name}:"
        if isinstance(node, Choice):
            lines.append(_line(f"{start} {in_yaml(node.value)}", node))
        else:
            lines += [start, *_nested(node, depth + 1)]
    return lines


def _line(text: str, choice: Choice) -> str:
    return f"{text:<{WIDTH}} # {one_line(choice.why)} [{choice.source}]"


def in_yaml(value: Any) -> str:
    """A value in one line of YAML; ``${`` stays two letters, and refers to nothing."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 30, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").replace("${", "\\${")
