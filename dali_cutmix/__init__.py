"""CutMix for NVIDIA DALI: mix images and labels inside the pipeline's graph."""

from dali_cutmix.config import MixConfig
from dali_cutmix.loader import Loader, train_loader, val_loader
from dali_cutmix.mixing import Mixed, cutmix, mix
from dali_cutmix.sampling import MixParams

__version__ = "0.1.0"
__all__ = [
    "Loader",
    "MixConfig",
    "MixParams",
    "Mixed",
    "cutmix",
    "mix",
    "train_loader",
    "val_loader",
]
