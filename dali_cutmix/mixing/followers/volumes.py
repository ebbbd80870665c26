"""Volumes as images, so that what moves images moves them: a row is a slice.

fn.multi_paste pastes rectangles, and of sequences of images only the first (DALI 2.4.0, CPU). So a
volume is one image of D rows, or of C * D where the channels come first, and H * W columns. Where
nothing is pasted a whole slice is then copied at once.
"""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._graph import paste
from dali_cutmix.mixing.plan import Regions, Size

__all__ = ["LAYOUTS", "MOST_CHANNELS", "as_images", "paste_by_axis", "rectangles", "shape_of"]

LAYOUTS = ("DHW", "DHWC", "CDHW")
MOST_CHANNELS = 16


def shape_of(size: tuple[int, ...], layout: str) -> list[int]:
    """Returns the shape of volumes, (D, H, W) with -1 for the channels, where there are some."""
    return {"DHW": [*size], "DHWC": [*size, -1], "CDHW": [-1, *size]}[layout]


def as_images(
    volumes: DataNode, size: tuple[int, ...], layout: str, dtype: types.DALIDataType, words: int = 1
) -> tuple[DataNode, list[int]]:
    """Returns volumes as images, and the shape of these: (D, H * W, C), or (C * D, H * W, 1).

    Args:
        dtype, words: as what a voxel is seen, and as how many of them.
    """
    depth, height, width = size
    shape = [-1, height * width, words] if layout == "CDHW" else [depth, height * width, -1]
    return fn.reinterpret(volumes, dtype=dtype, shape=shape, layout="HWC"), shape


def rectangles(
    images: DataNode, regions: Regions, size: Size, shape: list[int], in_ids: DataNode
) -> tuple[Regions, DataNode]:
    """Returns the box as rectangles, one for each y, and whose pixels each shows.

    All is pasted in one pass. A y outside of the box has an empty rectangle.

    Args:
        regions: int32 (2, 3) each.
        in_ids: int32 (2,), original and partner.
    """
    assert size.known is not None
    depth, height, width = size.known
    channels = MOST_CHANNELS if shape[0] == -1 else 1
    # For each rectangle its y, and its first row and column.
    number = np.arange(channels * height)
    y, row = number % height, number // height * depth
    table = types.Constant(np.stack([y, row, y * width], axis=1).astype(np.int32))
    rows = types.Constant(np.array([depth], np.int32))
    if shape[0] == -1:
        rows = fn.slice(images.shape(dtype=types.INT32), start=[0], shape=[1], axes=[0])
        table = fn.slice(table, start=[0], shape=rows // depth * height, axes=[0])
    start, sides = regions.anchors[1], regions.shapes[1]
    at = table[:, :1]
    inside = fn.cast((at >= start[1]) & (at < start[1] + sides[1]), dtype=types.INT32)
    columns = types.Constant(np.array([height * width], np.int32))
    whole = fn.reshape(fn.cat(rows, columns), shape=[1, 2])
    # An empty rectangle goes to the far corner, as in `boxes`.
    anchors = whole + inside * (table[:, 1:] + fn.stack(start[0], start[2]) - whole)
    shapes = inside * fn.stack(sides[0], sides[2])
    ids = fn.cat(in_ids[:1], fn.reshape(at * 0 + in_ids[1], shape=[-1]))
    return Regions(fn.cat(whole * 0, anchors), fn.cat(whole, shapes)), ids


def paste_by_axis(
    images: DataNode, partners: DataNode, regions: Regions, size: Size, shape: list[int]
) -> DataNode:
    """Returns images with the box of their partners, for which no index in the batch is known.

    The partner, of which what is outside the box is given back, axis by axis: seen as an image of
    which a column is a place on that axis and those after it, that is two rectangles. So it takes
    three passes.
    """
    assert size.known is not None
    pasted, start, sides = partners, regions.anchors[1], regions.shapes[1]
    for axis in range(3):
        inner = int(np.prod(size.known[axis + 1 :]))
        columns = size.known[axis] * inner
        seen = [-1, columns, shape[2]]
        if shape[0] != -1:
            seen = [shape[0] * shape[1] // columns, columns, -1]
        own, other = (fn.reshape(x, shape=seen, layout="HWC") for x in (images, pasted))
        whole = own.shape(dtype=types.INT32)[:2]
        left = start[axis] * inner
        right = left + sides[axis] * inner
        anchors, shapes, _ = _outside(whole, left, right)
        pasted = paste(
            other, own, own, shape=seen, in_anchors=anchors, out_anchors=anchors, shapes=shapes
        )
    return fn.reshape(pasted, shape=shape, layout="HWC")


def _outside(whole: DataNode, left: DataNode, right: DataNode) -> Regions:
    """Returns the regions of an image, (rows, columns), and of what is left and right in it.

    Of an empty one the anchor is the far corner.
    """
    rows, columns = whole[0], whole[1]
    none = left * 0
    first = fn.cast(left > 0, dtype=types.INT32)
    last = fn.cast(right < columns, dtype=types.INT32)
    left_anchor = whole * (1 - first)
    right_anchor = fn.stack(rows * (1 - last), right)
    anchors = fn.stack(fn.stack(none, none), left_anchor, right_anchor)
    shapes = fn.stack(whole, fn.stack(rows * first, left), fn.stack(rows * last, columns - right))
    return Regions(anchors, shapes)
