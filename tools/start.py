"""Plan a training for a folder of images: ``python tools/start.py /my/images [--run]``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from ssl_platform.cli import main

if __name__ == "__main__":
    sys.exit(main(["start", *sys.argv[1:]]))
