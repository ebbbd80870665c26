"""Small parts of graphs that readers and mixing have in common."""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._rules import states

__all__ = ["by_index", "class_index", "zero_unless"]


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
