"""The methods, a file each. A new one is a file, and a line here."""

from dali_cutmix.mixing.methods.cutmix import CutMix
from dali_cutmix.mixing.methods.detection_cutmix import DetectionCutMix
from dali_cutmix.mixing.methods.mixup import MixUp
from dali_cutmix.mixing.methods.mosaic import Mosaic
from dali_cutmix.mixing.methods.object_cutmix import ObjectCutMix
from dali_cutmix.mixing.methods.resizemix import ResizeMix

__all__ = ["METHODS", "CutMix", "DetectionCutMix", "MixUp", "Mosaic", "ObjectCutMix", "ResizeMix"]

METHODS = (CutMix, MixUp, ResizeMix, Mosaic, DetectionCutMix, ObjectCutMix)
