"""Boxes of objects through crop, flip and resize, and as tensors of one shape.

In the graph they are float32 (n, 4), left, top, right and bottom in [0, 1] of the image, n differs
by image; labels are int32 (n, 1). Both are on the CPU.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._seeds import op_seed
from dali_cutmix.data.images import INTERPOLATION, shape_of, signed_width

__all__ = ["Crop", "padded", "resize", "ssd_crop", "stretch"]

_THRESHOLDS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9]  # 0.0: any part of the image


class Crop(NamedTuple):
    """A part of each image, and what is seen there.

    Fields:
        start, shape: int32 (2,), (y, x) and (h, w), pixels of the image.
        boxes, labels: of the part.
    """

    start: DataNode
    shape: DataNode
    boxes: DataNode
    labels: DataNode


@graph_function
def ssd_crop(
    encoded: DataNode, boxes: DataNode, labels: DataNode, *, seed: int, shard_id: int
) -> Crop:
    """Returns a random part of each image, as SSD draws it (Liu et al. 2016, section 2.2).

    One of seven rules at random: the whole image, any part, or one whose IoU with an object is at
    least 0.1, 0.3, 0.5, 0.7 or 0.9; its sides are 0.3 to 1 of the image's, its width 0.5 to 2 times
    its height. A box stays where its centre is in the part, and is clipped to it; of an image with
    boxes at least one does. What torchvision calls RandomIoUCrop, with DALI's operator. (The paper
    says 0.1 to 1 for the size; 0.3 is of its code.)
    """
    size = shape_of(encoded)[:2]
    start, shape, boxes, labels = fn.random_bbox_crop(  # type: ignore[misc]  # it returns a list
        boxes,
        labels,
        input_shape=size,  # by which the aspect ratio is that of pixels
        shape_layout="HW",
        bbox_layout="xyXY",
        aspect_ratio=[0.5, 2.0],
        scaling=[0.3, 1.0],
        thresholds=_THRESHOLDS,
        all_boxes_above_threshold=False,
        allow_no_crop=True,
        num_attempts=50,
        seed=op_seed(seed, "crop", shard_id),
    )
    # To whole pixels, outwards; the boxes are moved by what that adds, and those that were clipped
    # end where the part does.
    width_height = _swapped(size)
    low, span = start * width_height, shape * width_height
    begin = dmath.floor(low)
    sides = dmath.min(dmath.ceil(low + span), width_height) - begin
    moved = (boxes * _twice(span) + _twice(low - begin)) / _twice(sides)
    moved = dmath.clamp(moved * (boxes > 0.0), boxes >= 1.0, 1.0)
    begin, sides = (fn.cast(_swapped(x), dtype=types.INT32) for x in (begin, sides))
    return Crop(begin, sides, moved, labels)


def _swapped(x: DataNode) -> DataNode:
    """Returns two numbers, (2,), in the other order."""
    return fn.cat(x[1:], x[:1])


def _twice(x: DataNode) -> DataNode:
    return fn.cat(x, x)


@graph_function
def resize(
    images: DataNode,
    boxes: DataNode,
    size: tuple[int, int],
    *,
    hflip: float,
    interpolation: str,
    antialias: bool,
    seed: int,
    shard_id: int,
) -> tuple[DataNode, DataNode]:
    """Returns images of one size and their boxes, some of them mirrored, with probability `hflip`.

    The sides are stretched to the size, as SSD does it.
    """
    width = signed_width(size, hflip, seed=seed, shard_id=shard_id)
    mirrored = fn.cast(width < 0.0, dtype=types.INT32)
    flipped = fn.bb_flip(boxes, ltrb=True, horizontal=mirrored)
    return stretch(images, (float(size[0]), width), interpolation, antialias), flipped


@graph_function
def stretch(
    images: DataNode,
    size: tuple[float, float | DataNode],
    interpolation: str,
    antialias: bool,
) -> DataNode:
    """Returns images of one size; a negative width mirrors."""
    resized = fn.resize(
        images,
        resize_y=float(size[0]),
        resize_x=size[1] if isinstance(size[1], DataNode) else float(size[1]),
        interp_type=INTERPOLATION[interpolation],
        antialias=antialias,
    )
    return cast("DataNode", resized)  # by its annotation it may be several, or None


@graph_function
def padded(
    boxes: DataNode, labels: DataNode, size: tuple[int, int], device: str
) -> tuple[DataNode, DataNode, DataNode]:
    """Returns boxes float32 (M, 4), labels int64 (M,) and how many there are, int64 ().

    M is the largest number of boxes of the batch; other samples are filled up with -1. Boxes are in
    pixels of images of the size. Boxes and labels are on the device, the number is on the CPU,
    where it is read.
    """
    height, width = size
    count = boxes.shape(dtype=types.INT64)[0]
    boxes = boxes * types.Constant(np.array([width, height] * 2, np.float32))
    labels = fn.cast(fn.squeeze(labels, axes=[1]), dtype=types.INT64)
    boxes, labels = (fn.pad(x, axes=[0], fill_value=-1) for x in (boxes, labels))
    if device == "gpu":
        boxes, labels = boxes.gpu(), labels.gpu()
    return boxes, labels, count
