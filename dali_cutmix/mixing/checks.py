"""Checks of the data inside the graph, and words for what DALI says when one fails.

The types and shapes of images and labels are known only when the pipeline runs. Each check is a
few cheap native operators that fail on wrong data; DALI's message then quotes the function they
stand in, by which `explain` finds the words.
"""

from __future__ import annotations

import re

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

__all__ = [
    "class_index",
    "class_row",
    "dali_reason",
    "explain",
    "hwc",
    "same_shape",
    "switch",
]


_MOST_CHANNELS = 16


def hwc(images: DataNode, dtype: str = "uint8") -> tuple[DataNode, DataNode]:
    """Returns `images` as they are, and their shapes, int32 (3,), on the CPU.

    Fails unless they are (H, W, C) with C at most 16, and with ``dtype="uint8"`` of this type.
    More channels are taken for CHW images whose layout was not said.
    """
    shape = images.shape(dtype=types.INT32)
    zeros = types.Constant(np.zeros(_MOST_CHANNELS + 1, np.int32))
    shape = shape + fn.slice(zeros, start=shape[2], shape=[1], axes=[0])
    if dtype == "uint8":
        return fn.reinterpret(images, dtype=types.UINT8, shape=shape), shape
    return fn.reinterpret(images, shape=shape), shape


def class_index(labels: DataNode, num_classes: int) -> DataNode:
    """Returns integer labels as int32 (1,); fails unless 0 <= label < num_classes."""
    # A bitwise operator takes no floats; the cast saturates, which keeps wrong labels wrong.
    start = fn.reshape(fn.cast(labels & -1, dtype=types.INT32), shape=[1])
    classes = types.Constant(np.arange(num_classes, dtype=np.int32))
    return fn.slice(classes, start=start, shape=[1], axes=[0])


def class_row(labels: DataNode, num_classes: int) -> DataNode:
    """Returns float labels as they are; fails unless each has num_classes numbers."""
    return fn.reshape(labels, shape=[num_classes])


def same_shape(others: DataNode, other_shape: DataNode, shape: DataNode) -> DataNode:
    """Returns the other images as they are; fails unless their shapes are those given."""
    difference = fn.reductions.sum(dmath.abs(shape - other_shape))
    start = fn.reshape(fn.cast(difference, dtype=types.INT32), shape=[1])
    zero = fn.slice(types.Constant(np.zeros(1, np.int32)), start=start, shape=[1], axes=[0])
    return fn.reinterpret(others, shape=shape + zero)


def switch(enabled: DataNode) -> DataNode:
    """Returns a scalar as bool (); fails for anything that is no scalar."""
    return fn.reshape(enabled, shape=[]) != 0


_WORDS = {
    ("checks", "hwc"): "`images` must be uint8, HWC and of one size: resize before mixing, "
    'normalise (or say `dtype="float32"`) and transpose after it.',
    ("checks", "class_index"): "`labels` must be int32 or int64 scalars in [0, num_classes): "
    "raise `num_classes`, or mend the labels (for those that begin at 1 find_source has "
    '`label_offset=-1`); for rows of floats set `labels="float"`.',
    (
        "checks",
        "class_row",
    ): '`labels` must be float32 rows of `num_classes` with `labels="float"`.',
}
_WORDS["nodes", "shaped"] = (
    "`images` must be HWC RGB of the size given: uint8 for augment(), float32, normalised, for "
    "erase()."
)
_WORDS["checks", "same_shape"] = "`partners` must have images of the shape of `images`."
_WORDS["checks", "switch"] = "`enabled` must be a bool, or a number, for each sample."
_WORDS |= {
    ("compositing", name): _WORDS["checks", "hwc"]
    for name in ("blend_pair", "blend_stacked", "gather", "paste", "paste_within", "shaped")
}
_WORDS["sampling", "by_place"] = (
    "Every batch must be full where samples are paired by their place "
    '(`partner="flip"`, `"roll"`, `mode="pair"`).'
)

_PARAMS = "`params` must hold a partner in the batch and a box inside the image."
_WORDS["mixing", "_labels_of_both"] = _WORDS["targets", "both_of"] = _PARAMS

_FRAME = re.compile(r'File ".*?(\w+)\.py", line \d+, in (\w+)')


def explain(error: BaseException) -> str | None:
    """Returns what was wrong with the data, in this package's words, or None if it cannot tell."""
    text = str(error)
    for frame in reversed(_FRAME.findall(text)):
        if frame in _WORDS:
            words = _WORDS[frame]
            if frame[0] == "compositing" and re.search("`in_idx`|pasted region must be", text):
                words = _PARAMS
            return f"{words} DALI: {dali_reason(text)}"
    return None


def dali_reason(text: str) -> str:
    """Returns the line of DALI's message that says what failed."""
    reason = text.partition("encountered:")[2].strip().splitlines()
    return reason[0] if reason else text.splitlines()[0]
