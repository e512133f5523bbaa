"""``python -m sish`` is the command ``sish``."""

import sys

from sish.cli import main

sys.exit(main())
