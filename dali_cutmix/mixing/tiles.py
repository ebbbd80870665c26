"""Four images meet at a point (Mosaic): the regions of all four, and their areas.

All of it for tables of N rows, as in `boxes`. In a table of which some rows only paste a box, these
have four regions as well, the last two of them empty.
"""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix.mixing import boxes

__all__ = ["area_fractions", "bottom_right", "layouts", "regions"]

# Along an axis of L pixels, of (start, side, L): where a region is taken from, where it is pasted,
# and its length.
_START, _SIDE, _LENGTH = np.eye(3, dtype=np.int32)
_NOTHING = _START * 0
_BEFORE = (_LENGTH - _START, _NOTHING, _START)  # the end of an image, before where they meet
_AFTER = (_NOTHING, _START, _LENGTH - _START)  # the beginning of one, after it
_WHOLE = (_NOTHING, _NOTHING, _LENGTH)
_BOX = (_START, _START, _SIDE)
_EMPTY = (_NOTHING, _NOTHING, _NOTHING)
# By region (y, x), where only a box is pasted and where four images meet: (2, 4, axes, 3, 3).
_REGIONS = np.array(
    [
        [(_WHOLE, _WHOLE), (_BOX, _BOX), (_EMPTY, _EMPTY), (_EMPTY, _EMPTY)],
        [(_BEFORE, _BEFORE), (_BEFORE, _AFTER), (_AFTER, _BEFORE), (_AFTER, _AFTER)],
    ]
)


def bottom_right(fraction: DataNode, size: DataNode, scope: tuple[float, float]) -> DataNode:
    """Returns the last of four regions, from where they meet: int32 (N, 4), ``(y, x, h, w)``.

    They meet at int(lo * S) + floor(fraction * (int(hi * S) - int(lo * S))) along each axis of S
    pixels.

    Args:
        fraction: float64 (N, 2) in [0, 1).
        size: int32 (2,), (H, W).
        scope: (lo, hi).
    """
    start = boxes.sides_between(fraction, size, scope)
    return fn.cast(fn.cat(start, size - start, axis=1), dtype=types.INT32)


def layouts() -> DataNode:
    """Returns the constant that `regions` takes, which lays out both kinds: int32 (72, 2)."""
    # By source, place and shape, region, axis, start, side and length; and kind.
    return types.Constant(_REGIONS.transpose(3, 1, 2, 4, 0).reshape(72, 2).astype(np.int32))


def regions(box: DataNode, tiled: DataNode, size: DataNode, layouts: DataNode) -> DataNode:
    """Returns the regions of four images: int32 (N, 12, 2), (y, x) of each.

    The first four are where each is taken from, the next where it is pasted, the last their shapes.
    What is empty is at (H, W), see `boxes`.

    Args:
        box: int32 (N, 4), what is pasted; where four images meet, the last region.
        tiled: bool (N, 1), whether four images meet, top left, top right, bottom left and bottom
            right; else two of them are of no use.
        size: int32 (2,), (H, W).
        layouts: see there. In the batch of the table, as the other arguments.
    """
    start, sides = box[:, :2], box[:, 2:]
    numbers = fn.expand_dims(fn.stack(start, sides, start * 0 + size, axis=2), axes=[1])
    pasted, four = layouts[:, 0], layouts[:, 1]
    layout = fn.reshape(pasted + tiled * (four - pasted), shape=[-1, 12, 2, 3])
    both = fn.reductions.sum(numbers * layout, axes=[3], dtype=types.INT32)
    shapes = both[:, 8:]
    empty = fn.cast(dmath.min(shapes[:, :, :1], shapes[:, :, 1:]) == 0, dtype=types.INT32)
    anchors = both[:, :8]
    anchors = anchors + fn.cat(empty, empty, axis=1) * (size - anchors)
    return fn.cat(anchors, shapes * (1 - empty), axis=1)


def area_fractions(shapes: DataNode, size: DataNode) -> DataNode:
    """Returns the share of the image that each region takes: float64 (N, regions).

    Args:
        shapes: int32 (N, regions, 2), (h, w).
        size: int32 (2,), (H, W).
    """
    ratios = shapes / fn.cast(size, dtype=types.FLOAT64)
    return fn.squeeze(ratios[:, :, :1] * ratios[:, :, 1:], axes=[2])
