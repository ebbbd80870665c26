"""Pixels: paste a region of the partner into the image, or blend the two."""

from __future__ import annotations

from typing import NamedTuple

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

__all__ = [
    "Regions",
    "blend_pair",
    "blend_stacked",
    "gather",
    "paste",
    "paste_within",
    "region_columns",
    "regions_of_row",
    "shaped",
]


class Regions(NamedTuple):
    """What fn.multi_paste pastes of two images: the whole of the first, a box of the second.

    Fields:
        in_anchors: int32 (2, 2), ``((0, 0), (y, x))``.
        out_anchors: int32 (2, 2), likewise; of a stacked sample ``((0, 0), (H, 0))``.
        shapes: int32 (2, 2), ``((H, W), (h, w))``.
        canvas: int32 (2,), (H, W), or (2 * H, W) of a stacked sample; None for the images' size.
    """

    in_anchors: DataNode
    out_anchors: DataNode
    shapes: DataNode
    canvas: DataNode | None = None

    def arguments(self) -> dict[str, DataNode]:
        """Returns the arguments of fn.multi_paste."""
        arguments = {
            "in_anchors": self.in_anchors,
            "out_anchors": self.out_anchors,
            "shapes": self.shapes,
        }
        return arguments if self.canvas is None else arguments | {"output_size": self.canvas}


def region_columns(box: DataNode, size: DataNode, stacked: DataNode | None = None) -> DataNode:
    """Returns a table of regions, int32 (N, 8), or (N, 14) where samples can be stacked.

    Args:
        box: int32 (N, 4), ``(y, x, h, w)`` inside the image; an empty one must be
            ``(H, W, 0, 0)``, and that of a stacked sample too.
        size: int32 (2,), (H, W).
        stacked: int32 (N, 1), 1 for the samples that get the whole partner below the image.
    """
    zeros = box[:, :2] * 0
    start, sides, whole = box[:, :2], box[:, 2:], zeros + size
    if stacked is None:
        return fn.cat(zeros, start, whole, sides, axis=1)
    moved = whole * stacked
    below = fn.cat(zeros[:, :1], moved[:, 1:], axis=1)
    canvas = fn.cat(whole[:, :1] + moved[:, :1], whole[:, 1:], axis=1)
    parts = (zeros, start - moved, whole, sides + moved, zeros, start - below, canvas)
    return fn.cat(*parts, axis=1)


def regions_of_row(row: DataNode, *, stacked: bool = False) -> Regions:
    """Returns the regions of a row of `region_columns`, or of a longer one that begins so."""
    anchors = fn.reshape(row[:4], shape=[2, 2])
    shapes = fn.reshape(row[4:8], shape=[2, 2])
    if not stacked:
        return Regions(anchors, anchors, shapes)
    return Regions(anchors, fn.reshape(row[8:12], shape=[2, 2]), shapes, row[12:14])


def paste(images: DataNode, others: DataNode, regions: Regions) -> DataNode:
    """Returns the images with a region of the other images in them, byte for byte.

    Args:
        images, others: HWC, one size for the batch, uint8 or float32, on the same device.
    """
    return fn.multi_paste(images, others, **regions.arguments())


def paste_within(
    images: DataNode, original: DataNode, partner: DataNode, regions: Regions
) -> DataNode:
    """Returns image `original` of the batch with a region of image `partner` in it.

    Every pixel is moved once, which `paste` with gathered images does not reach.

    Args:
        original, partner: int32 (), indices in the batch.
    """
    return fn.multi_paste(images, in_ids=fn.stack(original, partner), **regions.arguments())


def gather(images: DataNode, indices: DataNode) -> DataNode:
    """Returns image `indices` of the batch, a copy.

    fn.permute_batch would do as well, but does not refuse CHW images and several sizes.

    Args:
        images: HWC, one size for the batch, uint8 or float32.
        indices: int32 (), index in the batch.
    """
    return fn.multi_paste(images, in_ids=fn.reshape(indices, shape=[1]))


def shaped(images: DataNode, shape: DataNode | list[int]) -> DataNode:
    """Returns the images as HWC of a shape; fails where they have another number of values."""
    return fn.reshape(images, shape=shape, layout="HWC")


def blend_stacked(stacked: DataNode, lam: DataNode, shape: DataNode | list[int]) -> DataNode:
    """Returns lam * image + (1 - lam) * partner, HWC; bytes are rounded to nearest, halves to even.

    On the CPU, where this takes a fifth of the time of arithmetic on images: both images of a
    sample are the two rows of one, and a filter of two rows and one column weighs them.

    Args:
        stacked: (2 * H, W, C), the image above its partner, uint8 or float32.
        lam: float32 (), on the CPU.
        shape: (H, W, C), of the result; C may be -1.
    """
    weights = fn.reshape(fn.stack(lam, 1.0 - lam), shape=[2, 1])
    rows = fn.reshape(stacked, shape=[2, -1], layout="HW")
    return shaped(fn.filter(rows, weights, mode="valid"), shape)


def blend_pair(images: DataNode, others: DataNode, lam: DataNode, dtype: str) -> DataNode:
    """Returns the bytes of `blend_stacked`, on a GPU.

    Where the pixels of the two lie beside each other a matrix of one row and two columns weighs
    them. That is two kernels, half the instructions of arithmetic on images (six kernels), and
    a sixth of those of fn.filter.

    Args:
        images, others: HWC, on the GPU.
        lam: float32 (), on the CPU.
        dtype: "uint8" or "float32", the type of the images.
    """
    # To scale by lam around 1 is x -> lam * x + (1 - lam): the two weights, without arithmetic.
    weights = fn.transforms.scale(scale=fn.reshape(lam, shape=[1]), center=[1.0])
    pairs = fn.stack(images, others, axis=3)
    kind = types.UINT8 if dtype == "uint8" else types.FLOAT
    blended = fn.coord_transform(pairs, M=weights, dtype=kind)
    return fn.reshape(blended, src_dims=[0, 1, 2], layout="HWC")
