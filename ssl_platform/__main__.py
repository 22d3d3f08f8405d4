"""``python -m ssl_platform`` is the command line."""

import sys

from ssl_platform.cli import main

sys.exit(main())
