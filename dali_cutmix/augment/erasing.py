"""Random erasing of normalised images, as timm does it: `erase`, in two steps.

`draw_erase` draws which samples are erased, where and with what; `apply_erase` does it, to those
samples alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function, merge, split
from dali_cutmix._graph import paste
from dali_cutmix._seeds import op_seed
from dali_cutmix.augment.nodes import check_images, check_shape
from dali_cutmix.augment.policies import RandomErasing

__all__ = ["EraseDraw", "apply_erase", "draw_erase", "erase"]

_ATTEMPTS = 10  # of a box that fits, as timm's


class EraseDraw(NamedTuple):
    """What is erased, per sample.

    Fields:
        erased: bool (), CPU, whether anything is.
        box: int32 (4,), CPU, ``(y, x, h, w)`` in pixels, inside the image; of no meaning where
            `erased` is False.
        color: float32 (C,), CPU, what it is filled with for ``mode="color"``, else None.
        noise: float32 (h, w, C) on the device of the images, for ``mode="pixel"``, else None; one
            pixel where nothing is erased.

    Without color and noise it is filled with 0.
    """

    erased: DataNode
    box: DataNode
    color: DataNode | None = None
    noise: DataNode | None = None


@graph_function
def erase(
    images: DataNode,
    erasing: RandomErasing,
    *,
    size: tuple[int, int],
    channels: int = 3,
    seed: int,
    shard_id: int = 0,
) -> DataNode:
    """Returns normalised images with a box of some of them erased.

    Args:
        images: float32 HWC, all of `size` and `channels`, CPU or GPU.
        erasing: what to erase.
        size, channels: (H, W) and C of the images.
        seed, shard_id: as for `augment`.

    Returns:
        float32 HWC on the device of `images`; outside the boxes the same bytes.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Follows timm 1.0.31's RandomErasing with count 1.

    >>> from nvidia.dali import fn, pipeline_def, types
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    ... def pipe(root):
    ...     encoded, _ = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48), dtype=types.FLOAT)
    ...     images = fn.normalize(images, axes=[0, 1])
    ...     return erase(images, RandomErasing(prob=0.25), size=(32, 48), seed=1)
    >>> (images,) = pipe(root=photo_folder).run()
    >>> images.dtype.name, images.shape()[0]
    ('FLOAT', (32, 48, 3))
    """
    check_images(images, size)
    if not isinstance(erasing, RandomErasing):
        raise TypeError(f"`erasing` must be a RandomErasing, got {erasing!r}.")
    if erasing.prob == 0:
        return images
    images = check_shape(images, size, types.FLOAT, channels)
    draw = draw_erase(
        erasing, size=size, channels=channels, seed=seed, shard_id=shard_id, device=images.device
    )
    return apply_erase(images, draw, size=size, channels=channels)


def draw_erase(
    erasing: RandomErasing,
    *,
    size: tuple[int, int],
    channels: int = 3,
    seed: int,
    shard_id: int = 0,
    device: str = "cpu",
) -> EraseDraw:
    """Returns which samples are erased, where and with what.

    Args:
        device: that of the images, where ``mode="pixel"`` draws its noise.
    """

    def own(name: str) -> int:
        return op_seed(seed, "erase", name, shard_id)

    pixels = size[0] * size[1]
    area = _attempts([fraction * pixels for fraction in erasing.area], own("area"))
    half_log_ratio = _attempts([math.log(ratio) / 2 for ratio in erasing.ratio], own("ratio"))
    position = fn.random.uniform(
        range=[0.0, 1.0], shape=[2], dtype=types.FLOAT64, seed=own("place")
    )
    erased = fn.random.coin_flip(probability=erasing.prob, dtype=types.BOOL, seed=own("apply"))
    box, fits = _first_that_fits(area, half_log_ratio, position, size)
    erased = erased & fits
    color = noise = None
    if erasing.mode == "color":
        color = fn.random.normal(shape=[channels], seed=own("values"))
    elif erasing.mode == "pixel":
        sides = dmath.max(box[2:] * fn.cast(erased, dtype=types.INT32), 1)
        shape = fn.cat(sides, types.Constant(np.array([channels], np.int32)))
        noise = fn.random.normal(device=device, shape=shape, seed=own("values"))
    return EraseDraw(erased, box, color, noise)


def _attempts(bounds: list[float], seed: int) -> DataNode:
    low, high = bounds
    if np.float32(low) == np.float32(high):  # refused by fn.random.uniform, whose range is float32
        return types.Constant(np.full(_ATTEMPTS, low))
    return fn.random.uniform(range=bounds, shape=[_ATTEMPTS], dtype=types.FLOAT64, seed=seed)


def _first_that_fits(
    area: DataNode, half_log_ratio: DataNode, position: DataNode, size: tuple[int, int]
) -> tuple[DataNode, DataNode]:
    """Returns the box of the first attempt that fits, int32 (4,), and whether one does.

    Args:
        area: float64 (attempts,), in pixels.
        half_log_ratio: float64 (attempts,), log(height / width) / 2.
        position: float64 (2,) in [0, 1): where the box is between its first and its last position.
    """
    column = types.Constant(np.array([[1.0], [-1.0]]))
    image = types.Constant(np.array(size, np.int32))
    sides = dmath.floor(dmath.sqrt(area) * dmath.exp(half_log_ratio * column) + 0.5)
    limits = types.Constant(np.array(size, np.float64)[:, None])
    number = types.Constant(np.arange(_ATTEMPTS, dtype=np.int32))
    # Timm and torchvision ask for less than the image in both axes.
    bad = fn.reductions.max(fn.cast(sides >= limits, dtype=types.INT32), axes=[0])
    first = fn.reductions.min(bad * _ATTEMPTS + number)
    fits = first < _ATTEMPTS
    chosen = fn.cast(sides[:, dmath.min(first, _ATTEMPTS - 1)], dtype=types.INT32)
    start = fn.cast(dmath.floor(position * (image - chosen + 1)), dtype=types.INT32)
    # A box of no area erases nothing.
    return fn.cat(start, chosen), fits & (chosen[0] * chosen[1] > 0)


def apply_erase(
    images: DataNode, draw: EraseDraw, *, size: tuple[int, int], channels: int = -1
) -> DataNode:
    """Returns normalised images with the drawn boxes erased. Nothing is random.

    Args:
        images: float32 HWC, all of `size`, CPU or GPU.
        draw: what to erase; where `erased` is set, the box must not be empty.
        size: (H, W).
        channels: of the images; -1 where it is not known.
    """

    def of(node: DataNode) -> DataNode:
        return split(node, draw.erased)[0]

    images = fn.reshape(images, layout="HWC")
    part, rest = split(images, draw.erased)
    box = of(draw.box)
    if draw.noise is not None:
        origin = box[:2] * 0
        # As wide as the images: on a GPU fn.multi_paste (DALI 2.4.0) reads inputs of another width
        # with the row length of the first. To draw that much noise would take longer.
        noise = fn.pad(of(draw.noise), axes=[1], shape=[size[1]])
        part = paste(
            part,
            noise,
            shape=[*size, channels],
            in_anchors=fn.stack(origin, origin),
            out_anchors=fn.stack(origin, box[:2]),
            shapes=fn.stack(of(types.Constant(np.array(size, np.int32))), box[2:]),
        )
    else:
        color = 0.0 if draw.color is None else of(draw.color)
        ends = fn.cast(box, dtype=types.FLOAT)
        part = fn.erase(part, anchor=ends[:2], shape=ends[2:], axes=[0, 1], fill_value=color)
    return merge(part, rest, draw.erased)
