"""What a command line prints."""

import os
import sys


def show(text: str) -> None:
    """Print to standard output; no error when its reader has seen enough, as ``head`` has."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
