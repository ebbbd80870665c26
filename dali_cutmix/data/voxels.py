"""From the files of volumes and masks to crops of one size: what a graph does with both alike.

Volumes are DHW, DHWC or CDHW, masks DHW.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function, read_file
from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states
from dali_cutmix._seeds import op_seed
from dali_cutmix.data.volumes import MaskType, Volumes

__all__ = [
    "MASK_CLASSES",
    "MASK_FILE",
    "UNSCALED",
    "Scaling",
    "centre_crop",
    "checked_classes",
    "crop",
    "flip",
    "mask_type",
    "random_crop",
    "read_mask",
    "scale",
    "spatial",
    "to_channels_first",
]

MASK_FILE = "Every mask must be a .npy file as np.save writes it, of the shape of its volume."
MASK_CLASSES = (
    "Every mask must hold class indices in [0, num_classes): raise `num_classes`, or mend the "
    "masks. (Without `num_classes` nothing is checked.)"
)
_MAGIC = 10  # bytes before the text of a header, the last two its length
_FLIPS = ("depthwise", "vertical", "horizontal")


class Scaling(NamedTuple):
    """How voxels become what a network gets: (x - mean) / std, then clipped to [0, 1] or not.

    Fields:
        mean, std: in the units of the volumes, for all channels or one for each.
        clip: whether the result is clipped.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    clip: bool = False


UNSCALED = Scaling()


@graph_function
def read_mask(volumes: Volumes, images: DataNode) -> DataNode:
    """Returns the mask of each volume, DHW, CPU; bool as uint8.

    Its path is made from that of the volume, so that no order of a reader can part them.

    Args:
        images: the volumes, as the reader gives them.
    """
    image_suffix, mask_suffix = volumes.suffixes
    file = fn.get_property(images, key="source_info")
    length = file.shape(dtype=types.INT32) - len(os.fsencode(image_suffix))
    stem = fn.slice(file, start=[0], shape=length, axes=[0])
    content = read_file(
        fn.cat(_text(os.path.join(volumes.mask_root, "")), stem, _text(mask_suffix))
    )
    return _without_header(content, spatial(images, volumes.layout), mask_type(volumes))


def mask_type(volumes: Volumes) -> MaskType:
    """Returns the type of masks in a graph."""
    return "uint8" if volumes.mask_dtype == "bool" else volumes.mask_dtype


def _text(text: str) -> DataNode:
    return types.Constant(np.frombuffer(os.fsencode(text), np.uint8))


@states(MASK_FILE)
def _without_header(content: DataNode, shape: DataNode, dtype: str) -> DataNode:
    """Returns the values of a .npy file; fails unless they fill the shape."""
    low, high = (fn.cast(content[i : i + 1], dtype=types.INT32) for i in (_MAGIC - 2, _MAGIC - 1))
    start = low + 256 * high + _MAGIC
    values = fn.slice(
        content, start=start, shape=content.shape(dtype=types.INT32) - start, axes=[0]
    )
    kind: types.DALIDataType = getattr(types, dtype.upper())
    return fn.reinterpret(values, dtype=kind, shape=shape, layout="DHW")


@graph_function
def spatial(images: DataNode, layout: str) -> DataNode:
    """Returns (D, H, W) of each volume, int32."""
    first = int(layout == "CDHW")
    return images.shape(dtype=types.INT32)[first : first + 3]


@graph_function
def random_crop(
    images: DataNode,
    masks: DataNode,
    *,
    layout: str,
    size: Sequence[int],
    foreground: float,
    seed: int,
    shard_id: int,
) -> DataNode:
    """Returns where a random crop begins, int32 (3,), uniform over all places in each axis.

    Where a volume is smaller than the crop it is in the middle, and the start negative.

    Args:
        foreground: probability that the crop is put around a voxel drawn from those whose mask is
            above 0, as far as the border lets it, as nnU-Net oversamples foreground (nnU-Net draws
            the class first; here large classes come more often). A mask without any is cropped
            anywhere.
    """
    sides, spare = _spare(images, layout, size)
    at_most = dmath.max(spare, 0)
    u = fn.random.uniform(
        range=[0.0, 1.0], shape=[3], dtype=types.FLOAT64, seed=op_seed(seed, "crop", shard_id)
    )
    start = fn.cast(dmath.floor(u * (at_most + 1)), dtype=types.INT32)
    if foreground > 0:
        wanted = fn.random.coin_flip(
            probability=foreground, dtype=types.INT32, seed=op_seed(seed, "around", shard_id)
        )
        voxel = fn.segmentation.random_mask_pixel(
            masks, foreground=1, seed=op_seed(seed, "voxel", shard_id)
        )
        around = dmath.clamp(fn.cast(voxel, dtype=types.INT32) - sides // 2, 0, at_most)
        some = fn.cast(fn.reductions.max(masks) > 0, dtype=types.INT32)
        start += wanted * some * (around - start)
    return start - _before(spare)


@graph_function
def centre_crop(images: DataNode, *, layout: str, size: Sequence[int]) -> DataNode:
    """Returns where the middle crop begins, int32 (3,): (side - size) // 2, rounded down."""
    _, spare = _spare(images, layout, size)
    return dmath.max(spare, 0) // 2 - _before(spare)


def _spare(images: DataNode, layout: str, size: Sequence[int]) -> tuple[DataNode, DataNode]:
    """Returns the sides of a crop, and by how much volumes are larger, int32 (3,)."""
    sides = types.Constant(np.array(size, np.int32))
    return sides, spatial(images, layout) - sides


def _before(spare: DataNode) -> DataNode:
    """Returns how much is padded before a volume that is smaller than its crop, int32 (3,)."""
    return (dmath.max(spare * -1, 0) + 1) // 2


@graph_function
def crop(
    x: DataNode, start: DataNode, *, layout: str, size: Sequence[int], fill: Sequence[float]
) -> DataNode:
    """Returns a part of each volume or mask, with `fill` beyond the border, one or by channel."""
    first = int(layout == "CDHW")
    part: DataNode = fn.slice(
        x,
        start=start,
        shape=list(size),
        axes=[first, first + 1, first + 2],
        out_of_bounds_policy="pad",
        fill_values=list(fill),
    )
    return part


@graph_function
def flip(
    nodes: Sequence[tuple[DataNode, str]],
    probabilities: Sequence[float],
    *,
    seed: int,
    shard_id: int,
) -> list[DataNode]:
    """Returns volumes and masks, given with their layouts, mirrored alike along some axes.

    Args:
        probabilities: of each of D, H and W.
    """
    coins = {
        name: fn.random.coin_flip(
            probability=share, dtype=types.INT32, seed=op_seed(seed, "flip", name, shard_id)
        )
        for name, share in zip(_FLIPS, probabilities, strict=True)
        if share > 0
    }
    if not coins:
        return [x for x, _ in nodes]
    turned: dict[str, Any] = {"horizontal": 0, **coins}
    flipped = []
    for x, layout in nodes:
        if layout == "DHW":  # fn.flip takes volumes with channels alone
            x = fn.flip(fn.expand_dims(x, axes=[3], new_axis_names="C"), **turned)
            flipped.append(fn.squeeze(x, axes=[3]))
        else:
            flipped.append(fn.flip(x, **turned))
    return flipped


@states(MASK_CLASSES)
def checked_classes(masks: DataNode, num_classes: int) -> DataNode:
    """Returns the masks as they are; fails where a value is not in [0, num_classes)."""
    low, high = (
        fn.cast(reduce(masks), dtype=types.INT64)
        for reduce in (fn.reductions.min, fn.reductions.max)
    )
    zero = zero_unless((low < 0) | (high >= num_classes))
    return fn.reinterpret(masks, shape=masks.shape(dtype=types.INT32) + zero, layout="DHW")


@graph_function
def scale(images: DataNode, scaling: Scaling, *, layout: str) -> DataNode:
    """Returns the volumes as float32, scaled."""
    if scaling == UNSCALED:
        return fn.cast(images, dtype=types.FLOAT)
    axes = {"DHWC": [1, 1, 1, -1], "CDHW": [-1, 1, 1, 1], "DHW": [1, 1, 1]}[layout]
    statistics: dict[str, Any] = {}
    for name, values in (("mean", scaling.mean), ("stddev", scaling.std)):
        array = np.array(values, np.float32)
        one = len(values) == 1
        statistics[name] = float(array[0]) if one else types.Constant(array.reshape(axes))
    scaled: DataNode = fn.normalize(images, **statistics)
    return dmath.clamp(scaled, 0.0, 1.0) if scaling.clip else scaled


@graph_function
def to_channels_first(images: DataNode, layout: str) -> DataNode:
    """Returns volumes of any layout as CDHW."""
    if layout == "DHW":
        return fn.expand_dims(images, axes=[0], new_axis_names="C")
    if layout == "DHWC":
        return fn.transpose(images, perm=[3, 0, 1, 2], output_layout="CDHW")
    return images
