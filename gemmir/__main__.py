"""python -m gemmir: the command line."""

import sys

from gemmir.cli import main

sys.exit(main())
