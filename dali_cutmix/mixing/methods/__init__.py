"""The methods, a file each. A new one is a file, and a line here."""

from dali_cutmix.mixing.methods.attentivemix import AttentiveMix
from dali_cutmix.mixing.methods.cutmix import CutMix
from dali_cutmix.mixing.methods.cutout import Cutout
from dali_cutmix.mixing.methods.detection_cutmix import DetectionCutMix
from dali_cutmix.mixing.methods.fmix import FMix
from dali_cutmix.mixing.methods.gridmix import GridMix
from dali_cutmix.mixing.methods.mixup import MixUp
from dali_cutmix.mixing.methods.mosaic import Mosaic
from dali_cutmix.mixing.methods.object_cutmix import ObjectCutMix
from dali_cutmix.mixing.methods.resizemix import ResizeMix
from dali_cutmix.mixing.methods.saliencymix import SaliencyMix
from dali_cutmix.mixing.methods.smoothmix import SmoothMix
from dali_cutmix.mixing.methods.snapmix import SnapMix

__all__ = [
    "METHODS",
    "AttentiveMix",
    "CutMix",
    "Cutout",
    "DetectionCutMix",
    "FMix",
    "GridMix",
    "MixUp",
    "Mosaic",
    "ObjectCutMix",
    "ResizeMix",
    "SaliencyMix",
    "SmoothMix",
    "SnapMix",
]

METHODS = (
    *(CutMix, MixUp, ResizeMix, Mosaic, DetectionCutMix, GridMix, FMix, SmoothMix, Cutout),
    *(SaliencyMix, AttentiveMix, SnapMix, ObjectCutMix),
)
