"""CutMix for NVIDIA DALI: mix images and labels inside the pipeline's graph."""

from dali_cutmix import losses
from dali_cutmix._version import __version__
from dali_cutmix.config import MixConfig
from dali_cutmix.folder_loaders import train_loader, val_loader
from dali_cutmix.loader import Loader
from dali_cutmix.mixing import Mixed, cutmix, mix, mixup
from dali_cutmix.sampling import MixParams

__all__ = [
    "Loader",
    "MixConfig",
    "MixParams",
    "Mixed",
    "__version__",
    "cutmix",
    "losses",
    "mix",
    "mixup",
    "train_loader",
    "val_loader",
]
