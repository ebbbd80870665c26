"""``python -m dali_cutmix.cli``."""

import sys

from dali_cutmix.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
