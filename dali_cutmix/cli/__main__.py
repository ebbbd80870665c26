"""``python -m dali_cutmix.cli``."""

import sys

from dali_cutmix.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
