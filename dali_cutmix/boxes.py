"""lam, centre and image size -> the clipped box and the share it leaves of the original."""

from __future__ import annotations

from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

__all__ = ["corrected_lam", "paper_box"]


def paper_box(lam: DataNode, centre: DataNode, size: DataNode) -> DataNode:
    """Returns the box of the CutMix paper, clipped to the image: int32 (4,), ``(y, x, h, w)``.

    Per axis of S pixels: side = int(S * sqrt(1 - lam)), and the box is
    [centre - side // 2, centre + side // 2) clipped to [0, S] (Yun et al. 2019, and the authors'
    code). An empty box is returned as ``(H, W, 0, 0)``.

    Args:
        lam: float64 (), share of the original.
        centre: float64 (2,), integer-valued (y, x).
        size: int (2,), (H, W).
    """
    # floor(floor(x) / 2) == floor(x / 2), which saves an operator.
    half = dmath.floor(dmath.sqrt(1.0 - lam) * size * 0.5)
    return _clipped(centre - half, centre + half, size)


def corrected_lam(box: DataNode, size: DataNode) -> DataNode:
    """Returns the share of the original that the box leaves: float64 (), 1 - h * w / (H * W)."""
    # In float64 the product of the two ratios is exact enough for any image size.
    side_share = box[2:] / fn.cast(size, dtype=types.FLOAT64)
    return 1.0 - side_share[0] * side_share[1]


def _clipped(start: DataNode, end: DataNode, size: DataNode) -> DataNode:
    start = dmath.max(start, 0.0)
    sides = dmath.min(end, size) - start
    # An empty region goes to the far corner: on the GPU, multi_paste pastes pixels that it should
    # not for an empty region elsewhere.
    empty = sides[0] * sides[1] <= 0.0
    start = dmath.max(start, size * empty)
    sides = dmath.min(sides, size - start)
    return fn.cast(fn.cat(start, sides), dtype=types.INT32)
