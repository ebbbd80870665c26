"""Runs a script as the command line would: python -m tests.run_example SCRIPT ARGUMENTS…

Where torch is a CPU build and torchvision a CUDA build, torchvision, and with it timm, lacks two
schemas and cannot be imported; they are declared first.
"""

from __future__ import annotations

import functools
import runpy
import sys

import torch


@functools.cache  # once a process, and keeps the library alive
def declare_torchvision_schemas() -> torch.library.Library | None:
    """Returns the library of the declared schemas, or None where nothing is missing."""
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


if __name__ == "__main__":
    declare_torchvision_schemas()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
