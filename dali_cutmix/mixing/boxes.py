"""lam, centre and image size -> the clipped box and the share it leaves of the original.

All of it for tables of N rows, see `table.Table`; N is 1 where each sample has its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

__all__ = ["around", "between", "corrected_lam", "inside", "law", "normalised", "shares"]


def around(lam: DataNode, position: DataNode, size: DataNode, *, odd: bool = False) -> DataNode:
    """Returns the boxes around centres, clipped to the image: int32 (N, 4), ``(y, x, h, w)``.

    Per axis of S pixels: side = int(S * sqrt(1 - lam)), centre = floor(position * S), and the box
    is [centre - side // 2, centre + side // 2) clipped to [0, S] (Yun et al. 2019 and the authors'
    code; torchvision v2.CutMix); with `odd` it ends at centre + (side + 1) // 2 (timm 1.0.31).
    An empty box is returned as ``(H, W, 0, 0)``.

    Args:
        lam: float64 (N, 1), share of the original.
        position: float64 (N, 2) in [0, 1), (y, x).
        size: int32 (2,), (H, W).
    """
    centre = dmath.floor(position * size)
    # floor(floor(x) / 2) == floor(x / 2), which saves an operator.
    half = dmath.floor(dmath.sqrt(1.0 - lam) * size * 0.5)
    start = centre - half
    return _clipped(start, start + _sides(lam, size) if odd else centre + half, size)


def inside(lam: DataNode, position: DataNode, size: DataNode) -> DataNode:
    """Returns boxes of side int(S * sqrt(1 - lam)) that need no clipping, as `around` does.

    They start at floor(position * (S - side + 1)): uniform among the places inside the image.
    """
    return _placed(_sides(lam, size), position, size)


def between(
    lam: DataNode,
    sides: DataNode,
    position: DataNode,
    size: DataNode,
    minmax: tuple[float, float],
) -> DataNode:
    """Returns boxes inside the image with sides in [int(lo * S), int(hi * S)), as `around` does.

    side = int(lo * S) + floor(sides * (int(hi * S) - int(lo * S))) in each axis, as timm 1.0.31
    draws it for cutmix_minmax; empty where lam is 1.
    """
    low = dmath.floor(_times(size, minmax[0]))
    drawn = low + dmath.floor(sides * (dmath.floor(_times(size, minmax[1])) - low))
    return _placed(drawn * (lam < 1.0), position, size)


def normalised(box: DataNode, size: DataNode, unused: DataNode | None = None) -> DataNode:
    """Returns given boxes, int32 (N, 4), as drawn ones are: an empty one is ``(H, W, 0, 0)``.

    Args:
        unused: bool (N, 1), which boxes to take for empty.
    """
    empty = box[:, 2:3] * box[:, 3:] <= 0
    if unused is not None:
        empty = empty | unused
    nowhere = fn.cat(size, size * 0)
    return box + fn.cast(empty, dtype=types.INT32) * (nowhere - box)


def law(
    size: tuple[int, int], *, odd: bool = False
) -> tuple[NDArray[np.float64], list[NDArray[np.int32]]]:
    """Returns the distribution of the box `around` a uniform centre where lam is uniform.

    Sides are whole pixels, so they come in classes: those of sqrt(1 - lam) between two numbers at
    which a side changes. Within a class the box is a function of its centre, in each axis by
    itself. Exact, for 1 - lam = r * r has the distribution function r * r.

    Returns:
        The probabilities of the classes, (K,), and for each axis of S pixels an array, int32
        (K, S, 4), of ``(0, start, S, side)`` by class and centre; all empty, ``(0, S, S, 0)``,
        where one side is 0.
    """
    step = 1 if odd else 2  # a side of `around` is an even number
    edges = np.unique(np.concatenate([np.arange(0, s, step) / s for s in size]))
    edges = np.append(edges, 1.0)
    middles = (edges[:-1] + edges[1:]) / 2
    axes = []
    for length in size:
        side = np.floor(middles * length / step).astype(np.int32)[:, None] * step
        centre = np.arange(length, dtype=np.int32)[None]
        start = np.maximum(centre - side // 2, 0)
        end = np.minimum(centre + (side + 1) // 2, length)
        rows = np.broadcast_arrays(0, start, length, end - start)
        axes.append(np.stack(rows, axis=2).astype(np.int32))
    empty = np.any([(axis[:, 0, 3] == 0) for axis in axes], axis=0)
    for length, axis in zip(size, axes, strict=True):
        axis[empty] = (0, length, length, 0)
    return np.diff(edges**2), axes


def shares(size: tuple[int, int]) -> NDArray[np.float32]:
    """Returns the share of the original that a box leaves, by its sides: (H + 1, W + 1)."""
    height, width = size
    areas = np.outer(np.arange(height + 1), np.arange(width + 1))
    return ((height * width - areas) / (height * width)).astype(np.float32)


def corrected_lam(box: DataNode, size: DataNode) -> DataNode:
    """Returns the share of the original that boxes leave: float64 (N, 1), 1 - h * w / (H * W)."""
    # In float64 the product of the two ratios is exact enough for any image size.
    side_share = box[:, 2:] / fn.cast(size, dtype=types.FLOAT64)
    return 1.0 - side_share[:, :1] * side_share[:, 1:]


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


def _sides(lam: DataNode, size: DataNode) -> DataNode:
    return dmath.floor(dmath.sqrt(1.0 - lam) * size)


def _placed(sides: DataNode, position: DataNode, size: DataNode) -> DataNode:
    start = dmath.floor(position * (size - sides + 1.0))
    return _clipped(start, start + sides, size)


def _clipped(start: DataNode, end: DataNode, size: DataNode) -> DataNode:
    start = dmath.max(start, 0.0)
    sides = dmath.min(end, size) - start
    # An empty region goes to the far corner: on the GPU, multi_paste pastes pixels that it should
    # not for an empty region elsewhere.
    empty = sides[:, :1] * sides[:, 1:] <= 0.0
    start = dmath.max(start, size * empty)
    sides = dmath.min(sides, size - start)
    return fn.cast(fn.cat(start, sides, axis=1), dtype=types.INT32)
