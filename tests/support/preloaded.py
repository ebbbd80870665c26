"""What scripts import, once for all of the processes that `tests.support.forked` starts."""

from __future__ import annotations

import importlib
import importlib.util

import torch

import dali_cutmix as dcm
from tests.support.run_example import complete_torchvision

torch.set_num_threads(1)
complete_torchvision()
for name in dcm.__all__:  # they are imported when they are asked for
    getattr(dcm, name)
for name in ("timm", "pytorch_lightning"):
    if importlib.util.find_spec(name) is not None:
        importlib.import_module(name)
