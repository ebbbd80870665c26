"""The box around an object of the partner's mask, in the place of one that was drawn."""

from __future__ import annotations

from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states
from dali_cutmix.mixing import boxes
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.methods.object_cutmix import ObjectCutMix
from dali_cutmix.mixing.plan import FLAGS, MixParams, Rows, Size, plan_of

__all__ = ["cut_objects", "object_boxes"]

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


def cut_objects(params: MixParams, box: DataNode, size: Size) -> MixParams:
    """Returns the plan with the box of the partner's object, where its method is ObjectCutMix.

    Args:
        params: with ``of_object``.
        box: as `object_boxes` gives it, of the partner.
    """
    assert params.of_object is not None
    assert params.box is not None
    axes = size.axes
    drawn, given = (fn.reshape(x, shape=[1, 2 * axes]) for x in (params.box, box))
    cut = fn.reshape(params.of_object, shape=[1, 1])
    chosen = drawn + (given - drawn) * cut
    lam = fn.reshape(params.lam, shape=[1, 1]) * (cut ^ True)
    lam = lam + boxes.original_fraction(given, size.node, axes=axes) * cut
    flags = {name: getattr(params, name) for name in FLAGS}
    rows = {name: fn.reshape(x, shape=[1, 1]) for name, x in flags.items() if x is not None}
    return plan_of(Rows(lam, chosen, **rows), size)
