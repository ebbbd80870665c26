"""Detection, from the reader to the tensors: `train` and `val`.

    read -> decode -> crop -> resize and flip -> mix -> normalise      (train)
    read -> decode -> resize -> normalise                              (val)

Boxes go along all the way. All images are resized to one size, for only images of one size can be
mixed; the aspect ratio is not kept. One definition serves both devices; boxes are on the CPU until
the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._seeds import op_seed
from dali_cutmix.data import boxes as objects
from dali_cutmix.data import images as pixels
from dali_cutmix.data.readers import read_boxes
from dali_cutmix.data.sources import Source
from dali_cutmix.mixing.api import Batch, mix_batch
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.followers.boxes import mix_boxes
from dali_cutmix.recipes import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["train", "val"]


@pipeline_def
def train(
    source: Source,
    mix: MixConfig | None = None,
    *,
    keep: tuple[float, float] = (0.5, 0.5),
    crop: Literal["resize", "ssd"] = "resize",
    shuffle: bool = True,
    device: str = "cpu",
    size: tuple[int, int] = (320, 320),
    hflip: float = 0.5,
    interpolation: str = "bilinear",
    antialias: bool = True,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: str = "float32",
    layout: str = "NCHW",
    shard_id: int = 0,
    num_shards: int = 1,
    hw_decoder_load: float = 0.65,
    with_params: bool = False,
    mixing: Callable[[], Any] | None = None,
) -> tuple[DataNode, ...]:
    """Returns images, boxes, labels, counts and image ids; see `detection_loader`.

    Boxes and labels are padded, see `data.boxes.padded`. A mixed image has the id of the original.
    ``with_params`` adds lam, what was cut, (y, x, h, w), and the id of the partner. `mixing` is
    asked for every batch whether it is to be mixed, see `Loader`; without it nothing is fed.
    """
    seed = Pipeline.current().seed or 0
    own: dict[str, Any] = {"seed": seed, "shard_id": shard_id}
    encoded, boxes, labels, ids = read_boxes(source, shuffle=shuffle, num_shards=num_shards, **own)
    if crop == "ssd":
        start, shape, boxes, labels = objects.ssd_crop(encoded, boxes, labels, **own)
        images = pixels.decode_part(encoded, start, shape, device, hw_decoder_load)
    else:
        images = pixels.decode(encoded, device, hw_decoder_load)
    images, boxes = objects.resize(
        images,
        boxes,
        size,
        hflip=hflip,
        interpolation=interpolation,
        antialias=antialias,
        **own,
    )

    params, original = None, ids
    if mix is not None:
        enabled = None if mixing is None else fn.external_source(source=mixing, batch=True)
        batch = Batch(images, None, [*size, 3])
        own_seed = op_seed(op_seed(seed, shard_id), "mix")
        images, _, params = mix_batch(
            batch,
            mix,
            enabled=enabled,
            objects=boxes if mix.avoids else None,
            seed=own_seed,
            keep_order=False,
        )
        boxes, labels = mix_boxes(boxes, labels, params, keep=keep)
        if params.original is not None:
            original = fn.permute_batch(ids, indices=params.original)

    images = pixels.normalise(images, mean=mean, std=std, dtype=dtype, layout=layout)
    targets = (*objects.padded(boxes, labels, size, device), _scalar(original))
    if not with_params or params is None:
        return images, *targets
    partner = fn.permute_batch(ids, indices=params.partner)
    assert params.box is not None
    return images, *targets, params.lam, params.box, _scalar(partner)


@pipeline_def
def val(
    source: Source,
    *,
    device: str = "cpu",
    size: tuple[int, int] = (320, 320),
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
    """Returns images, boxes, labels, counts, image ids and the sizes of the files, int64 (2,)."""
    encoded, boxes, labels, ids = read_boxes(
        source, shuffle=False, shard_id=shard_id, num_shards=num_shards
    )
    images = objects.stretch(
        pixels.decode(encoded, device, hw_decoder_load), size, interpolation, antialias
    )
    images = pixels.normalise(images, mean=mean, std=std, dtype=dtype, layout=layout)
    original_size = fn.cast(pixels.shape_of(encoded)[:2], dtype=types.INT64)
    return images, *objects.padded(boxes, labels, size, device), _scalar(ids), original_size


def _scalar(ids: DataNode) -> DataNode:
    """Returns ids as int64 ()."""
    return fn.reshape(fn.cast(ids, dtype=types.INT64), shape=[])
