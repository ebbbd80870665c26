"""Pixels: paste a region of the partner into the image, or blend the two."""

from __future__ import annotations

from typing import NamedTuple

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

__all__ = [
    "Regions",
    "blend",
    "gather",
    "paste",
    "paste_within",
    "region_columns",
    "regions_of_row",
]


class Regions(NamedTuple):
    """What fn.multi_paste pastes of two images: the whole of the first, a box of the second.

    Fields:
        anchors: int32 (2, 2), ``((0, 0), (y, x))``.
        shapes: int32 (2, 2), ``((H, W), (h, w))``.
    """

    anchors: DataNode
    shapes: DataNode

    def box(self) -> DataNode:
        """Returns the box, int32 (4,), ``(y, x, h, w)``."""
        return fn.cat(self.anchors[1], self.shapes[1])

    def arguments(self) -> dict[str, DataNode]:
        """Returns the arguments of fn.multi_paste."""
        return {"in_anchors": self.anchors, "out_anchors": self.anchors, "shapes": self.shapes}


def regions_of_row(row: DataNode) -> Regions:
    """Returns the regions of a row of `region_columns`, or of a longer one that begins so."""
    return Regions(fn.reshape(row[:4], shape=[2, 2]), fn.reshape(row[4:8], shape=[2, 2]))


def region_columns(box: DataNode, size: DataNode) -> DataNode:
    """Returns a table of regions, int32 (N, 8), anchors and shapes beside each other.

    Args:
        box: int32 (N, 4), ``(y, x, h, w)`` inside the image; an empty one must be
            ``(H, W, 0, 0)``.
        size: int32 (2,), (H, W).
    """
    zeros = box[:, :2] * 0
    return fn.cat(zeros, box[:, :2], zeros + size, box[:, 2:], axis=1)


def paste(images: DataNode, others: DataNode, regions: Regions) -> DataNode:
    """Returns the images with a box of the other images in them, byte for byte.

    Args:
        images, others: HWC, one size for the batch, uint8 or float32, on the same device.
    """
    return fn.multi_paste(images, others, **regions.arguments())


def paste_within(
    images: DataNode, original: DataNode, partner: DataNode, regions: Regions
) -> DataNode:
    """Returns image `original` of the batch with a box of image `partner` in it.

    Every pixel is moved once, which `paste` with gathered images does not reach.

    Args:
        original, partner: int32 (), indices in the batch.
    """
    return fn.multi_paste(images, in_ids=fn.stack(original, partner), **regions.arguments())


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
