"""Pixels: paste a region of the partner into the image."""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix.checks import uint8_hwc

__all__ = ["paste"]


def paste(
    images: DataNode,
    partner: DataNode,
    box: DataNode,
    size: DataNode,
    original: DataNode | None = None,
) -> DataNode:
    """Returns the images with the box of the partner image in them, byte for byte.

    Args:
        images: uint8 HWC, one size for the batch, CPU or GPU.
        partner: int32 (), index in the batch of the image that gives the patch.
        box: int32 (4,), ``(y, x, h, w)`` inside the image; may be empty, then anchored at (H, W).
        size: int32 (2,), (H, W).
        original: int32 (), index in the batch of the background; None stands for the sample
            itself. With it every pixel is moved once. Without, the partner images are gathered
            first, which moves them twice: no DALI operator tells a sample its own index.

    The same call serves other uint8 data that goes with the images, such as masks.
    """
    images = uint8_hwc(images)
    anchors = fn.stack(types.Constant(np.zeros(2, np.int32)), box[:2])
    shapes = fn.stack(size, box[2:])
    regions = {"in_anchors": anchors, "out_anchors": anchors, "shapes": shapes}
    # Region 0 is the whole background; region 1, the patch, is pasted over it.
    if original is None:
        return fn.multi_paste(images, fn.permute_batch(images, indices=partner), **regions)
    return fn.multi_paste(images, in_ids=fn.stack(original, partner), **regions)
