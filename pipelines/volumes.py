"""Volumes with masks, for segmentation in 3-D: `train` and `val`.

    read -> random crop -> flip -> mix -> scale      (train)
    read -> centre crop, or whole    -> scale        (val)

Volume and mask go the same way: one crop, one flip, one plan of mixing. They are read, and cropped,
on the CPU; with ``device="gpu"`` everything after that runs on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._seeds import op_seed
from dali_cutmix.data import voxels
from dali_cutmix.data.images import DTYPE
from dali_cutmix.data.readers import read_volumes
from dali_cutmix.data.volumes import Volumes
from dali_cutmix.data.voxels import UNSCALED, Scaling
from dali_cutmix.mixing.api import mix as mix_volumes
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.followers.masks import mix_masks

__all__ = ["train", "val"]


@pipeline_def
def train(
    source: Volumes,
    mix: MixConfig | None = None,
    *,
    size: tuple[int, int, int],
    foreground: float = 0.0,
    flip: Sequence[float] = (0.5, 0.5, 0.5),
    scaling: Scaling = UNSCALED,
    fill: Sequence[float] = (0.0,),
    num_classes: int | None = None,
    shuffle: bool = True,
    device: str = "cpu",
    dtype: str = "float32",
    shard_id: int = 0,
    num_shards: int = 1,
    mixing: Callable[[], Any] | None = None,
) -> tuple[DataNode, DataNode]:
    """Returns scaled volumes, (C, D, H, W), and masks, int64 (D, H, W); see `volume_loader`.

    `mixing` is asked for every batch whether it is to be mixed, see `Loader`.
    """
    seed, layout, kind = Pipeline.current().seed or 0, source.layout, voxels.mask_type(source)
    own: dict[str, Any] = {"seed": seed, "shard_id": shard_id}
    images = read_volumes(source, shuffle=shuffle, num_shards=num_shards, **own)
    masks = voxels.read_mask(source, images)
    start = voxels.random_crop(
        images, masks, layout=layout, size=size, foreground=foreground, **own
    )
    images = voxels.crop(images, start, layout=layout, size=size, fill=fill)
    masks = voxels.crop(masks, start, layout="DHW", size=size, fill=[0])
    if num_classes is not None:
        masks = voxels.checked_classes(masks, num_classes)
    # Objects are looked for on the CPU.
    of_objects = mix is not None and mix.object_method is not None
    if device == "gpu":
        images, masks = images.gpu(), masks if of_objects else masks.gpu()
    images, masks = voxels.flip([(images, layout), (masks, "DHW")], flip, **own)
    if mix is not None:
        enabled = None if mixing is None else fn.external_source(source=mixing, batch=True)
        mixed = mix_volumes(
            images,
            None,
            mix,
            size=size,
            layout=layout,
            dtype=source.dtype,
            enabled=enabled,
            objects=masks if of_objects else None,
            seed=op_seed(op_seed(seed, shard_id), "mix"),
            keep_order=False,
        )
        images = mixed.images
        if of_objects and device == "gpu":
            masks = masks.gpu()
        masks = mix_masks(masks, mixed.params, dtype=kind, layout="DHW")
    return _finished(images, masks, layout, scaling, dtype)


@pipeline_def
def val(
    source: Volumes,
    *,
    size: tuple[int, int, int] | None = None,
    scaling: Scaling = UNSCALED,
    fill: Sequence[float] = (0.0,),
    num_classes: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    shard_id: int = 0,
    num_shards: int = 1,
) -> tuple[DataNode, DataNode]:
    """Returns what `train` does, of the middle of each volume, or of all of it without `size`."""
    images = read_volumes(source, shuffle=False, shard_id=shard_id, num_shards=num_shards)
    masks, layout = voxels.read_mask(source, images), source.layout
    if size is not None:
        start = voxels.centre_crop(images, layout=layout, size=size)
        images = voxels.crop(images, start, layout=layout, size=size, fill=fill)
        masks = voxels.crop(masks, start, layout="DHW", size=size, fill=[0])
    if num_classes is not None:
        masks = voxels.checked_classes(masks, num_classes)
    if device == "gpu":
        images, masks = images.gpu(), masks.gpu()
    return _finished(images, masks, layout, scaling, dtype)


@graph_function
def _finished(
    images: DataNode, masks: DataNode, layout: str, scaling: Scaling, dtype: str
) -> tuple[DataNode, DataNode]:
    images = voxels.to_channels_first(voxels.scale(images, scaling, layout=layout), layout)
    return fn.cast(images, dtype=DTYPE[dtype]), fn.cast(masks, dtype=types.INT64)
