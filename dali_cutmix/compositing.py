"""Pixels: paste a region of the partner into the image, or blend the two."""

from __future__ import annotations

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

__all__ = ["blend", "gather", "paste", "paste_within"]


def paste(images: DataNode, others: DataNode, box: DataNode, size: DataNode) -> DataNode:
    """Returns the images with the box of the other images in them, byte for byte.

    Args:
        images, others: HWC, one size for the batch, uint8 or float32, on the same device.
        box: int32 (4,), ``(y, x, h, w)`` inside the image; an empty one must be ``(H, W, 0, 0)``.
        size: int32 (2,), (H, W).
    """
    return fn.multi_paste(images, others, **_regions(box, size))


def paste_within(
    images: DataNode, original: DataNode, partner: DataNode, box: DataNode, size: DataNode
) -> DataNode:
    """Returns image `original` of the batch with the box of image `partner` in it.

    Every pixel is moved once, which `paste` with gathered images does not reach.

    Args:
        original, partner: int32 (), indices in the batch.
    """
    return fn.multi_paste(images, in_ids=fn.stack(original, partner), **_regions(box, size))


def gather(images: DataNode, index: DataNode) -> DataNode:
    """Returns image `index` of the batch, a copy.

    fn.permute_batch would do as well, but does not refuse CHW images and several sizes.

    Args:
        images: HWC, one size for the batch, uint8 or float32.
        index: int32 (), index in the batch.
    """
    return fn.multi_paste(images, in_ids=fn.reshape(index, shape=[1]))


def blend(images: DataNode, others: DataNode, lam: DataNode, dtype: str = "uint8") -> DataNode:
    """Returns lam * image + (1 - lam) * other, HWC; for uint8 rounded to the nearest, halves up.

    Args:
        lam: float32 (), on the device of the images.
        dtype: "uint8" or "float32", the type of the images.
    """
    blended = lam * images + (1.0 - lam) * others
    return fn.cast(blended, dtype=types.UINT8) if dtype == "uint8" else blended


def _regions(box: DataNode, size: DataNode) -> dict[str, DataNode]:
    # Region 0 is the whole background; region 1, the patch, is pasted over it. (size * 0 and not
    # a constant: a constant has the whole batch also where `box` is of a part of it.)
    anchors = fn.stack(size * 0, box[:2])
    return {"in_anchors": anchors, "out_anchors": anchors, "shapes": fn.stack(size, box[2:])}
