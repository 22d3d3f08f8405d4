"""``python -m ssl_platform.zoo`` is tools/zoo.py."""

import sys

from ssl_platform.zoo.cli import main

sys.exit(main())
