"""Share, centre and image size -> the clipped box and the fraction that it leaves of the original.

All of it for tables of N rows, see `draw.Draw`; N is 1 where each sample has its own. Images have
two axes, (y, x), volumes three, (z, y, x).
"""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

__all__ = [
    "area",
    "area_fraction",
    "around",
    "between",
    "clipped",
    "inside",
    "normalised",
    "original_fraction",
    "placed",
    "sides_between",
    "where",
]


def around(
    share: DataNode, centre: DataNode, size: DataNode, *, odd: bool = False, axes: int = 2
) -> DataNode:
    """Returns the boxes around centres, clipped to the image: int32 (N, 4), ``(y, x, h, w)``.

    Per axis of S pixels: side = int(S * sqrt(share)), and the box is [centre - side // 2,
    centre + side // 2) clipped to [0, S] (Yun et al. 2019 and the authors' code; torchvision
    v2.CutMix); with `odd` it ends at centre + (side + 1) // 2 (timm 1.0.31). An empty box is
    returned as ``(H, W, 0, 0)``. Boxes of volumes are int32 (N, 6), ``(z, y, x, d, h, w)``.

    Args:
        share: float64 (N, 1), 1 - lam, of the image that the box takes before it is clipped; of
            three axes it takes share ** 1.5.
        centre: float64 or int64 (N, 2), pixels (y, x).
        size: int32 (2,), (H, W).
        axes: how many there are.
    """
    sides = dmath.sqrt(share) * size
    # floor(floor(x) / 2) == floor(x / 2), which saves an operator.
    half = dmath.floor(sides * 0.5)
    start = centre - half
    end = start + dmath.floor(sides) if odd else centre + half
    return clipped(start, end, size, axes=axes)


def inside(share: DataNode, position: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns boxes of side int(S * sqrt(share)), `placed` inside the image."""
    return placed(dmath.floor(dmath.sqrt(share) * size), position, size, axes=axes)


def between(
    fraction: DataNode,
    position: DataNode,
    size: DataNode,
    minmax: tuple[float, float],
    *,
    axes: int = 2,
) -> DataNode:
    """Returns boxes with sides in [int(lo * S), int(hi * S)), `placed` inside the image.

    side = int(lo * S) + floor(fraction * (int(hi * S) - int(lo * S))) in each axis, as timm 1.0.31
    draws it for cutmix_minmax.

    Args:
        fraction: float64 (N, 2) in [0, 1).
    """
    return placed(sides_between(fraction, size, minmax), position, size, axes=axes)


def sides_between(fraction: DataNode, size: DataNode, minmax: tuple[float, float]) -> DataNode:
    """Returns whole numbers in [int(lo * S), int(hi * S)) for each axis, as `between` has them."""
    low = dmath.floor(_times(size, minmax[0]))
    return low + dmath.floor(fraction * (dmath.floor(_times(size, minmax[1])) - low))


def placed(sides: DataNode, position: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns boxes that need no clipping, as `around` does.

    They start at floor(position * (S - side + 1)): uniform among the places inside the image.

    Args:
        sides: float64 (N, 2), whole numbers, (h, w).
    """
    start = dmath.floor(position * (size - sides + 1.0))
    return clipped(start, start + sides, size, axes=axes)


def normalised(box: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns given boxes, int32 (N, 4), as drawn ones are: an empty one is ``(H, W, 0, 0)``."""
    return where(area(box, axes=axes) > 0, box, fn.cat(size, size * 0))


def area(box: DataNode, *, axes: int = 2) -> DataNode:
    """Returns the pixels, or voxels, of boxes: int32 (N, 1)."""
    return _product(box, axes, 2 * axes)


def where(condition: DataNode, box: DataNode, otherwise: DataNode) -> DataNode:
    """Returns the box of each row, int32 (N, 4), or else `otherwise`, int32 (4,)."""
    return otherwise + fn.cast(condition, dtype=types.INT32) * (box - otherwise)


def original_fraction(box: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns what boxes leave of the original, 1 - h * w / (H * W): float64 (N, 1)."""
    return 1.0 - area_fraction(box[:, axes:], size, axes=axes)


def area_fraction(sides: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns what sides, (N, 2), take of the image, h * w / (H * W): float64 (N, 1)."""
    # In float64 the product of the ratios is exact enough for any image size.
    ratios = sides / fn.cast(size, dtype=types.FLOAT64)
    return _product(ratios, 0, axes)


def _times(size: DataNode, factor: float) -> DataNode:
    """Returns size * factor in float64, to the last bit as Python has it.

    DALI takes a Python number for a float32, so the factor goes in as the sum of a few float32
    numbers. Their products are exact, and so are all sums but the last.
    """
    length = fn.cast(size, dtype=types.FLOAT64)
    product, rest, parts = length * 0.0, factor, []
    while part := float(np.float32(rest)):
        parts.append(part)
        rest -= part
    for part in reversed(parts):
        product = length * part + product
    return product


def _product(x: DataNode, start: int, stop: int) -> DataNode:
    """Returns the product of some columns, (N, 1)."""
    return reduce(operator.mul, (x[:, i : i + 1] for i in range(start, stop)))


def clipped(start: DataNode, end: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns boxes from start to end, (N, 2), whole numbers, clipped to the image, as `around`."""
    start = dmath.max(start, 0)
    sides = dmath.min(end, size) - start
    # An empty region goes to the far corner: on the GPU, multi_paste pastes pixels that it should
    # not for an empty region elsewhere.
    empty = _product(sides, 0, axes) <= 0
    start = dmath.max(start, size * empty)
    sides = dmath.min(sides, size - start)
    return fn.cast(fn.cat(start, sides, axis=1), dtype=types.INT32)
