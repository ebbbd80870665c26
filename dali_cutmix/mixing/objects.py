"""The box around an object of each mask, which ObjectCutMix cuts."""

from __future__ import annotations

from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.methods.object_cutmix import ObjectCutMix
from dali_cutmix.mixing.plan import Size

__all__ = ["object_boxes"]

MASKS = (
    "`objects` must be masks of bool or of integers up to 32 bits, (H, W) or (H, W, 1), of volumes "
    "(D, H, W) or (D, H, W, 1), and of the size of the images: crop and resize them alike."
)


@states(MASKS)
def object_boxes(masks: DataNode, method: ObjectCutMix, size: Size, draw: Draw) -> DataNode:
    """Returns the box around an object of each mask, int32 (4,), ``(y, x, h, w)``.

    Of a mask without an object it is empty, ``(H, W, 0, 0)``.
    """
    axes = size.axes
    shape = masks.shape(dtype=types.INT32)[:axes]
    wrong = fn.reductions.max(dmath.abs(shape - size.node))
    whole = fn.reshape(masks, shape=shape + zero_unless(wrong), layout="HW" if axes == 2 else "DHW")
    box, found = draw.object_box("object", whole, method.classes, method.background)
    nowhere = size.nowhere()
    return nowhere + (box - nowhere) * found
