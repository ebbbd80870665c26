"""Small parts of graphs that readers and mixing have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._rules import states

__all__ = ["by_index", "class_index", "paste", "zero_unless"]

_WARP, _BLOCK = 32, 512  # values of a row
_MOST_CHANNELS = 16


@states(
    "Every batch must be full where samples are paired by their index in the batch "
    '(`partner="flip"`, `"roll"`, `mode="pair"`) or repeated (`repeats`).'
)
def by_index(x: DataNode, indices: list[int]) -> DataNode:
    """Returns sample ``indices[i]`` of x as sample i; fails unless the batch has len(indices)."""
    return fn.permute_batch(x, indices=indices)


@states(
    "`labels` must be int32 or int64 scalars in [0, num_classes): raise `num_classes`, or mend the "
    "labels (for those that begin at 1 find_source has `label_offset=-1`); for rows of floats set "
    '`labels="float"`.'
)
def class_index(labels: DataNode, num_classes: int, ones: DataNode | int = -1) -> DataNode:
    """Returns integer labels as int32 (1,); fails unless 0 <= label < num_classes.

    Args:
        ones: -1, also a node, int32 (1, 1, 1), that fails where something else is wrong.
    """
    # A bitwise operator takes no floats; the cast saturates, which keeps wrong labels wrong.
    start = fn.reshape(fn.cast(labels & ones, dtype=types.INT32), shape=[1])
    classes = types.Constant(np.arange(num_classes, dtype=np.int32))
    return fn.slice(classes, start=start, shape=[1], axes=[0])


def zero_unless(wrong: DataNode) -> DataNode:
    """Returns 0, int32 (1,); fails where `wrong`, a scalar, is True or above 0."""
    start = fn.reshape(fn.cast(wrong, dtype=types.INT32), shape=[1])
    return fn.slice(types.Constant(np.zeros(1, np.int32)), start=start, shape=[1], axes=[0])


def paste(
    images: DataNode,
    *others: DataNode,
    size: DataNode | tuple[int, int],
    channels: int | None = None,
    **where: Any,
) -> DataNode:
    """Returns what fn.multi_paste does, for outputs as large as the images.

    On a GPU its kernel (DALI 2.4.0) looks for what to paste behind the end of its list, until it
    finds something or memory ends, where a row ends less than 32 values after a multiple of 512.
    There the canvas is wider, and cut afterwards.

    Args:
        size: (H, W), or int32 (2,) on the CPU.
        channels: of the images; by default any number up to 16.
        where: other arguments of fn.multi_paste.
    """
    canvas: Any
    if isinstance(size, DataNode):
        fits, canvas = images.device == "cpu", None
        if not fits:
            canvas = fn.cat(size[:1], (size[1:] + (_WARP - 1)) // _WARP * _WARP)
    else:
        possible = range(1, _MOST_CHANNELS + 1) if channels is None else [channels]
        rows = (size[1] * count % _BLOCK for count in possible)
        fits = images.device == "cpu" or not any(0 < row < _WARP for row in rows)
        canvas = list(size) if fits else [size[0], -(-size[1] // _WARP) * _WARP]
    pasted: DataNode = fn.multi_paste(images, *others, output_size=canvas, **where)
    if not fits:
        pasted = fn.slice(pasted, start=[0, 0], shape=size, axes=[0, 1])
    return pasted
