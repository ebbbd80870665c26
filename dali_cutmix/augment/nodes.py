"""What the augmentations need of the nodes of a graph: checks, constants by code, devices."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._rules import states
from dali_cutmix._validation import checked_int

__all__ = ["check_images", "check_shape", "lookup", "to_device_of"]


def check_images(images: DataNode, size: tuple[int, int]) -> None:
    """Raises TypeError or ValueError unless this is a node and (H, W), each side at least 3."""
    if not isinstance(images, DataNode):
        name = type(images).__name__
        raise TypeError(f"`images` must be a DataNode of a pipeline, got {name}.")
    if not isinstance(size, tuple) or len(size) != 2:
        raise TypeError(f"`size` must be (height, width), got {size!r}.")
    for side in size:
        checked_int("size", side, 3)


@states(
    "`images` must be HWC of the size given: uint8 RGB for augment(), float32, normalised and of "
    "`channels`, for erase()."
)
def check_shape(
    images: DataNode, size: tuple[int, int], dtype: types.DALIDataType, channels: int = 3
) -> DataNode:
    """Returns the images as they are; fails at run time unless they are of this size and type."""
    expected = types.Constant(np.array([*size, channels], np.int32))
    # fn.reinterpret by itself would take other images of as many bytes, such as CHW.
    wrong = fn.reductions.sum(dmath.abs(images.shape(dtype=types.INT32) - expected))
    start = fn.reshape(fn.cast(wrong, dtype=types.INT32), shape=[1])
    zero = fn.slice(types.Constant(np.zeros(1, np.int32)), start=start, shape=[1], axes=[0])
    return fn.reinterpret(images, dtype=dtype, shape=expected + zero, layout="HWC")


def lookup(
    code: DataNode, values: Collection[float], dtype: types.DALIDataType = types.FLOAT
) -> DataNode:
    """Returns ``values[code]``, element by element; 0 where the code is beyond them."""
    numbers = [float(value) for value in values]
    return fn.lookup_table(code, keys=list(range(len(numbers))), values=numbers, dtype=dtype)


def to_device_of(value: DataNode, images: DataNode) -> DataNode:
    """Returns a CPU node on the device of the images, for arithmetic with them."""
    return value.gpu() if images.device == "gpu" else value
