"""Small parts of graphs that readers and mixing have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._rules import states

__all__ = ["FULL", "by_index", "class_index", "gathered", "paste", "zero_unless"]

_WARP, _BLOCK = 32, 256  # values of a row
_MOST_CHANNELS = 16


FULL = (
    "Every batch must be full where samples are paired by their index in the batch "
    '(`partner="flip"`, `"roll"`, `"same"`, `"other"`, `mode="pair"`) or repeated (`repeats`).'
)


@states(FULL)
def by_index(x: DataNode, indices: list[int]) -> DataNode:
    """Returns sample ``indices[i]`` of x as sample i; fails unless the batch has len(indices)."""
    return fn.permute_batch(x, indices=indices)


def gathered(x: DataNode, index: DataNode | None) -> DataNode:
    """Returns those of other samples of the batch, by index; None stands for the sample's own."""
    return x if index is None else fn.permute_batch(x, indices=index)


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
    images: DataNode, *others: DataNode, shape: DataNode | Sequence[int], **where: Any
) -> DataNode:
    """Returns what fn.multi_paste does, for outputs as large as the images.

    On a GPU its kernel (DALI 2.4.0) looks for what to paste behind the end of its list, until it
    finds something or memory ends, where a row ends less than 32 values after a multiple of 256.
    There the canvas is wider, and cut afterwards.

    Args:
        shape: of the images, int32 (3,), or [H, W, C], in which H and C may be -1.
        where: other arguments of fn.multi_paste.
    """
    known = None if isinstance(shape, DataNode) else list(shape)
    if images.device == "cpu" or (known is not None and _rows_fit(known)):
        size = known[:2] if known is not None and known[0] >= 0 else None
        pasted: DataNode = fn.multi_paste(images, *others, output_size=size, **where)
        return pasted
    size_node = images.shape(dtype=types.INT32)[:2]
    canvas = fn.cat(size_node[:1], (size_node[1:] + (_WARP - 1)) // _WARP * _WARP)
    wide = fn.multi_paste(images, *others, output_size=canvas, **where)
    cut: DataNode = fn.slice(wide, start=[0, 0], shape=size_node, axes=[0, 1])
    return cut


def _rows_fit(shape: list[int]) -> bool:
    """Returns whether rows of [H, W, C], of which C may be -1, can be pasted on a GPU."""
    possible = [shape[2]] if shape[2] > 0 else range(1, _MOST_CHANNELS + 1)
    return not any(0 < shape[1] * channels % _BLOCK < _WARP for channels in possible)
