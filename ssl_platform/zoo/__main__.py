import sys

from ssl_platform.zoo.cli import main

sys.exit(main())
