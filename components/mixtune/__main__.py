"""The command `mixtune`, as `python -m mixtune`."""

import sys

from mixtune.cli import main

sys.exit(main())
