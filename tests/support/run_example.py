"""Runs a script as the command line would: python -m tests.support.run_example SCRIPT ARGUMENTS…

Where torch is a CPU build and torchvision a CUDA build, torchvision, and with it timm, can be
imported only by `import_torchvision`.
"""

from __future__ import annotations

import runpy
import sys

from dali_cutmix.cli.bench.peers import import_torchvision

if __name__ == "__main__":
    import_torchvision()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
