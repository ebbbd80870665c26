"""Segmentation, from the reader to the tensor: `train` and `val`, images with a mask each.

    read -> decode -> random resized crop -> flip -> mix -> normalise        (train)
    read -> decode -> resize -> centre crop -> normalise                     (val)

The mask goes the way of its image: the same crop, the same flip, the same plan. It is resized to
nearest pixels, and never averaged. Masks are decoded on the CPU, and resized and mixed with their
images on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._seeds import op_seed
from dali_cutmix.data import images as pixels
from dali_cutmix.data import masks as mask_files
from dali_cutmix.data.masks import Masks
from dali_cutmix.data.readers import read
from dali_cutmix.data.sources import Source
from dali_cutmix.mixing.api import Batch, mix_batch
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.followers.masks import mix_masks
from dali_cutmix.recipes import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["train", "val"]


@pipeline_def
def train(
    source: Source,
    mix: MixConfig | None = None,
    *,
    blend: Literal["refuse", "heavier"] = "refuse",
    shuffle: bool = True,
    device: str = "cpu",
    size: tuple[int, int] = (224, 224),
    area: Sequence[float] = (0.25, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
    antialias: bool = True,
    hflip: float = 0.5,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: str = "float32",
    layout: str = "NCHW",
    shard_id: int = 0,
    num_shards: int = 1,
    hw_decoder_load: float = 0.65,
    mixing: Callable[[], Any] | None = None,
) -> tuple[DataNode, ...]:
    """Returns normalised images and their masks, int64 (H, W); see `segmentation_loader`."""
    seed = Pipeline.current().seed or 0
    own: dict[str, Any] = {"seed": seed, "shard_id": shard_id}
    encoded, rule = read(source, shuffle=shuffle, num_shards=num_shards, **own)
    start, shape = pixels.random_crop(encoded, area=area, ratio=ratio, **own)
    images = pixels.decode_part(encoded, start, shape, device, hw_decoder_load)
    # Objects are looked for on the CPU.
    of_objects = mix is not None and mix.object_method is not None
    masks = _decoded(encoded, rule, source, start, shape, "cpu" if of_objects else device)
    width = pixels.signed_width(size, hflip, **own)
    images = pixels.resize(
        images, size, width, interpolation=interpolation, antialias=antialias, **own
    )
    masks = _resized(masks, resize_y=float(size[0]), resize_x=width)
    if mix is not None:
        enabled = None if mixing is None else fn.external_source(source=mixing, batch=True)
        batch = Batch(images, None, [*size, 3])
        own_seed = op_seed(op_seed(seed, shard_id), "mix")
        mixed = mix_batch(
            batch,
            mix,
            enabled=enabled,
            objects=masks if of_objects else None,
            seed=own_seed,
            keep_order=False,
        )
        images = mixed.images
        if of_objects and device == "gpu":
            masks = masks.gpu()
        masks = mix_masks(
            masks, mixed.params, dtype=_masks(source).dtype, layout="HWC", blend=blend
        )
    images = pixels.normalise(images, mean=mean, std=std, dtype=dtype, layout=layout)
    return images, _classes(masks)


@pipeline_def
def val(
    source: Source,
    *,
    device: str = "cpu",
    size: tuple[int, int] = (224, 224),
    resize: int = 224,
    interpolation: str = "bilinear",
    antialias: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: str = "float32",
    layout: str = "NCHW",
    shard_id: int = 0,
    num_shards: int = 1,
    hw_decoder_load: float = 0.65,
) -> tuple[DataNode, ...]:
    """Returns normalised images and their masks, int64 (H, W); see `segmentation_loader`."""
    encoded, rule = read(source, shuffle=False, shard_id=shard_id, num_shards=num_shards)
    images = pixels.decode(encoded, device, hw_decoder_load)
    whole = pixels.shape_of(encoded)[:2]
    masks = _decoded(encoded, rule, source, whole * 0, whole, device)
    start, end = pixels.centre_crop(encoded, size, resize)
    roi: dict[str, Any] = {"size": size, "roi_start": start, "roi_end": end}
    resized = fn.resize(
        images, interp_type=pixels.INTERPOLATION[interpolation], antialias=antialias, **roi
    )
    images = cast("DataNode", resized)  # by its annotation it may be several, or None
    images = pixels.normalise(images, mean=mean, std=std, dtype=dtype, layout=layout)
    return images, _classes(_resized(masks, **roi))


def _masks(source: Source) -> Masks:
    assert source.masks is not None
    return source.masks


@graph_function
def _decoded(
    encoded: DataNode,
    rule: DataNode,
    source: Source,
    start: DataNode,
    shape: DataNode,
    device: str,
) -> DataNode:
    """Returns the same part of the masks, (h, w, 1), on the device."""
    masks = _masks(source)
    of_mask = mask_files.read_encoded(encoded, rule, masks)
    part = mask_files.decode_part(of_mask, masks, start, shape, encoded)
    return part.gpu() if device == "gpu" else part


@graph_function
def _resized(masks: DataNode, **to: Any) -> DataNode:
    resized = fn.resize(masks, interp_type=types.INTERP_NN, antialias=False, **to)
    return cast("DataNode", resized)  # by its annotation it may be several, or None


@graph_function
def _classes(masks: DataNode) -> DataNode:
    """Returns masks, (H, W, 1), as class indices, int64 (H, W)."""
    return fn.cast(fn.squeeze(masks, axes=[2]), dtype=types.INT64)
