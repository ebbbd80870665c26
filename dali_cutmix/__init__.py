"""CutMix for NVIDIA DALI: mix images and labels inside the pipeline's graph.

Names are loaded when they are asked for: a graph alone needs DALI and NumPy, and neither torch nor
what the commands need.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dali_cutmix._version import __version__

if TYPE_CHECKING:
    from dali_cutmix import losses, recipes
    from dali_cutmix.augment.policies import (
        ColorJitter,
        Lighting,
        RandAugment,
        RandomErasing,
        ThreeAugment,
        TrivialAugmentWide,
    )
    from dali_cutmix.data.sources import Source, find_source
    from dali_cutmix.loaders.classification import train_loader, val_loader
    from dali_cutmix.loaders.detection import detection_loader
    from dali_cutmix.loaders.loader import Loader
    from dali_cutmix.loaders.segmentation import segmentation_loader
    from dali_cutmix.loaders.volumes import volume_loader
    from dali_cutmix.mixing.api import Mixed, cutmix, mix, mixup
    from dali_cutmix.mixing.config import MixConfig
    from dali_cutmix.mixing.followers.boxes import mix_boxes
    from dali_cutmix.mixing.followers.masks import mix_masks
    from dali_cutmix.mixing.methods import (
        AttentiveMix,
        CutMix,
        Cutout,
        DetectionCutMix,
        FMix,
        GridMix,
        MixUp,
        Mosaic,
        ObjectCutMix,
        ResizeMix,
        SaliencyMix,
        SmoothMix,
        SnapMix,
    )
    from dali_cutmix.mixing.plan import MixParams
    from dali_cutmix.recipes import Recipe

__all__ = [
    "AttentiveMix",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "DetectionCutMix",
    "FMix",
    "GridMix",
    "Lighting",
    "Loader",
    "MixConfig",
    "MixParams",
    "MixUp",
    "Mixed",
    "Mosaic",
    "ObjectCutMix",
    "RandAugment",
    "RandomErasing",
    "Recipe",
    "ResizeMix",
    "SaliencyMix",
    "SmoothMix",
    "SnapMix",
    "Source",
    "ThreeAugment",
    "TrivialAugmentWide",
    "__version__",
    "cutmix",
    "detection_loader",
    "find_source",
    "losses",
    "mix",
    "mix_boxes",
    "mix_masks",
    "mixup",
    "recipes",
    "segmentation_loader",
    "train_loader",
    "val_loader",
    "volume_loader",
]

_NAMES = {
    "dali_cutmix.augment.policies": (
        *("ColorJitter", "Lighting", "RandAugment", "RandomErasing"),
        *("ThreeAugment", "TrivialAugmentWide"),
    ),
    "dali_cutmix.data.sources": ("Source", "find_source"),
    "dali_cutmix.loaders.classification": ("train_loader", "val_loader"),
    "dali_cutmix.loaders.detection": ("detection_loader",),
    "dali_cutmix.loaders.loader": ("Loader",),
    "dali_cutmix.loaders.segmentation": ("segmentation_loader",),
    "dali_cutmix.loaders.volumes": ("volume_loader",),
    "dali_cutmix.mixing.api": ("Mixed", "cutmix", "mix", "mixup"),
    "dali_cutmix.mixing.config": ("MixConfig",),
    "dali_cutmix.mixing.followers.boxes": ("mix_boxes",),
    "dali_cutmix.mixing.followers.masks": ("mix_masks",),
    "dali_cutmix.mixing.methods": (
        *("AttentiveMix", "CutMix", "Cutout", "DetectionCutMix", "FMix", "GridMix", "MixUp"),
        *("Mosaic", "ObjectCutMix", "ResizeMix", "SaliencyMix", "SmoothMix", "SnapMix"),
    ),
    "dali_cutmix.mixing.plan": ("MixParams",),
    "dali_cutmix.recipes": ("Recipe",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def _has_dali() -> bool:
    try:
        return find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # nothing of NVIDIA's is there
        return False


if not _has_dali():
    raise ImportError(
        "dali_cutmix needs NVIDIA DALI, of which there is one package per CUDA version: "
        "pip install 'dali-cutmix[cuda12]' for CUDA 12 or a CPU alone, "
        "'dali-cutmix[cuda13]' for CUDA 13."
    )


if not TYPE_CHECKING:  # else a misspelt name would be Any

    def __getattr__(name: str) -> Any:
        try:
            if name in ("losses", "recipes"):
                return import_module(f"dali_cutmix.{name}")
            if name not in _MODULES:
                raise AttributeError(f"module 'dali_cutmix' has no attribute {name!r}")
            value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ImportError(f"`{name}` needs torch: pip install 'dali-cutmix[torch]'.") from error
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
