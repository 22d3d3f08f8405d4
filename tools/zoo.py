"""Published models, and weights of any format: ``python tools/zoo.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from ssl_platform.zoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
