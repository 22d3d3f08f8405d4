"""Commands as a user types them, from the present working directory."""

import os
import re
import shlex
from pathlib import Path

TOOL = Path("tools/run_distributed.py")
# a value that neither Hydra nor a shell reads otherwise
PLAIN = re.compile(r"[\w./@%+-]+", re.ASCII)


def command(**values: str | Path) -> str:
    """A command with its overrides; ``__`` in a name stands for a dot."""
    program = f"python {TOOL}" if TOOL.is_file() else "python -m ssl_platform"
    overrides = (f"{key.replace('__', '.')}={value(str(v))}" for key, v in values.items())
    return " ".join([program, *map(shlex.quote, overrides)])


def from_here(path: Path) -> str:
    """A path as short as it can be typed here."""
    inside = os.path.relpath(path)
    return str(path) if inside.startswith("..") else inside


def value(text: str) -> str:
    """A value of an override in Hydra's grammar."""
    if PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)  # a backslash counts only before a quote
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
