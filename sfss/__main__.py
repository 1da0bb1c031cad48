"""``python -m sfss``."""

import sys

from sfss.cli import main

sys.exit(main())
