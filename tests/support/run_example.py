"""Runs a script as the command line would: python -m tests.support.run_example SCRIPT ARGUMENTS…

Where torch is a CPU build and torchvision a CUDA build, torchvision, and with it timm, can be
imported only by `import_torchvision`, and has no suppression of boxes that overlap: it is here.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys

import torch
from torch import library

from dali_cutmix.cli.bench.peers import import_torchvision

OPERATORS = library.Library("torchvision", "FRAGMENT")  # registered as long as it lives


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The indices of the boxes that no better one overlaps, the best first."""
    from torchvision.ops import box_iou

    kept = []
    order = scores.argsort(descending=True)
    overlaps = box_iou(boxes, boxes) > iou_threshold
    gone = torch.zeros(len(boxes), dtype=torch.bool)
    for i in order.tolist():
        if not gone[i]:
            kept.append(i)
            gone |= overlaps[i]
    return torch.tensor(kept, dtype=torch.int64)


def complete_torchvision() -> None:
    import_torchvision()
    if importlib.util.find_spec("torchvision") is None:
        return
    extension = importlib.import_module("torchvision.extension")
    if not extension._has_ops():
        extension._has_ops = lambda: True
        OPERATORS.impl("nms", nms, "CPU")


if __name__ == "__main__":
    complete_torchvision()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
