"""`python -m hpsweep`, where the command is not on the path."""

import sys

from hpsweep.cli import main

sys.exit(main())
