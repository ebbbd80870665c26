"""CutMix for NVIDIA DALI: mix images and labels inside the pipeline's graph."""

from dali_cutmix import losses, recipes
from dali_cutmix._version import __version__
from dali_cutmix.config import MixConfig
from dali_cutmix.image_loaders import train_loader, val_loader
from dali_cutmix.loader import Loader
from dali_cutmix.mixing import Mixed, cutmix, mix, mixup
from dali_cutmix.policies import (
    ColorJitter,
    Lighting,
    RandAugment,
    RandomErasing,
    ThreeAugment,
    TrivialAugmentWide,
)
from dali_cutmix.recipes import Recipe
from dali_cutmix.sampling import MixParams
from dali_cutmix.sources import Source, find_source

__all__ = [
    "ColorJitter",
    "Lighting",
    "Loader",
    "MixConfig",
    "MixParams",
    "Mixed",
    "RandAugment",
    "RandomErasing",
    "Recipe",
    "Source",
    "ThreeAugment",
    "TrivialAugmentWide",
    "__version__",
    "cutmix",
    "find_source",
    "losses",
    "mix",
    "mixup",
    "recipes",
    "train_loader",
    "val_loader",
]
