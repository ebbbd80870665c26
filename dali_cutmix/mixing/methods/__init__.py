"""The methods, a file each. A new one is a file, and a line here."""

from dali_cutmix.mixing.methods.cutmix import CutMix
from dali_cutmix.mixing.methods.detection_cutmix import DetectionCutMix
from dali_cutmix.mixing.methods.mixup import MixUp
from dali_cutmix.mixing.methods.mosaic import Mosaic
from dali_cutmix.mixing.methods.resizemix import ResizeMix
from dali_cutmix.mixing.methods.saliencymix import SaliencyMix
from dali_cutmix.mixing.methods.snapmix import SnapMix

__all__ = [
    "BY_SALIENCY",
    "METHODS",
    "CutMix",
    "DetectionCutMix",
    "MixUp",
    "Mosaic",
    "ResizeMix",
    "SaliencyMix",
    "SnapMix",
]

METHODS = (CutMix, MixUp, ResizeMix, Mosaic, DetectionCutMix, SaliencyMix, SnapMix)
BY_SALIENCY = (SaliencyMix, SnapMix)
