"""Of several areas one that touches no box of an object, chosen per sample.

In float32 and in pixels, operation by operation as Ultralytics (8.4.190) computes it, so that the
same areas touch, and the same boxes come along, also where it is close.
"""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix.mixing import boxes
from dali_cutmix.mixing.plan import Beside, Found, Size

__all__ = ["MOST", "ORDERS", "inside_fractions", "resolved", "taken"]

MOST = 64
ORDERS = 2**24  # times MOST it is an int32
_NUMBERS = np.arange(MOST, dtype=np.int32).reshape(MOST, 1)
_LEAST = 0.1  # of a box of the partner, from which it comes along


def resolved(count: int, columns: DataNode, beside: Beside, size: Size) -> Found:
    """Returns the area that is cut; it completes the plans of DetectionCutMix, see `plan.Later`.

    The last by its number of those areas that touch no box of the image; none, and nothing is
    mixed, where all of them do, or where no box of the partner would come along.

    Args:
        count: K.
        columns: int32 (5 K,), K areas, ``(y, x, h, w)`` each, and K numbers in [0, ORDERS).
    """
    assert beside.objects is not None
    own, other = beside.objects
    candidates = fn.reshape(columns[: 4 * count], shape=[count, 4])
    order = fn.reshape(columns[4 * count :], shape=[count, 1])
    touched = fn.reductions.max(inside_fractions(own, candidates, size), axes=[1], keep_dims=True)
    free = touched <= 0.0
    # No two numbers are alike: a sum picks one area.
    rank = (order * count + types.Constant(_NUMBERS[:count]) + 1) * free
    first = (rank == fn.reductions.max(rank, axes=[0], keep_dims=True)) & free
    area = fn.reductions.sum(candidates * first, axes=[0], dtype=types.INT32, keep_dims=True)
    coming = taken(other, area, size)
    mixed = fn.reductions.max(fn.cast(coming, dtype=types.INT32)) > 0
    return Found(boxes.where(mixed, area, size.nowhere()))


def taken(objects: DataNode, area: DataNode, size: Size) -> DataNode:
    """Returns which boxes of the partner come along with an area, int32 (1, 4): bool (1, n + 1).

    The first is that of no box, and False.
    """
    return inside_fractions(objects, area, size) >= _LEAST


def inside_fractions(objects: DataNode, areas: DataNode, size: Size) -> DataNode:
    """Returns which part of each box is in each area: float32 (K, n + 1), the first 0.

    So that there is one where there is no box. A box without area is nowhere.

    Args:
        objects: float32 (n, 4), ltrb in [0, 1].
        areas: int32 (K, 4), ``(y, x, h, w)``.
    """
    start = fn.cast(areas[:, :2], dtype=types.FLOAT)
    end = fn.cast(areas[:, :2] + areas[:, 2:], dtype=types.FLOAT)
    columns = fn.transpose(objects, perm=[1, 0])
    columns = fn.slice(
        columns,
        start=[-1],
        end=columns.shape(dtype=types.INT32)[1:],
        axes=[1],
        out_of_bounds_policy="pad",
    )
    height, width = (fn.cast(size.node[k], dtype=types.FLOAT) for k in range(2))
    left, right = columns[:1] * width, columns[2:3] * width
    top, bottom = columns[1:2] * height, columns[3:] * height
    across = dmath.min(end[:, 1:], right) - dmath.max(start[:, 1:], left)
    down = dmath.min(end[:, :1], bottom) - dmath.max(start[:, :1], top)
    inside = dmath.max(across, 0.0) * dmath.max(down, 0.0)
    return inside / ((right - left) * (bottom - top) + 1e-7)
