"""``python -m december_plugin.cli``: the command ``december``."""

import sys

from december_plugin.cli import main

sys.exit(main())
