"""ImageNet-style classification, from the reader to the tensor: `train` and `val`.

    read -> decode -> random resized crop -> flip -> augment -> mix -> normalise      (train)
    read -> decode -> random resized crop -> flip -> augment ─┘    (partners of a second reader)
    read -> decode -> resize -> centre crop -> normalise                              (val)

One definition serves both devices. With ``device="gpu"`` nvJPEG decodes ("mixed") and everything
after it runs on the GPU. Random erasing works on normalised images, after mixing or, as most
recipes have it, before; then floats are mixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

from nvidia.dali import Pipeline, fn, pipeline_def
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._seeds import op_seed
from dali_cutmix.augment.erasing import erase as erase_boxes
from dali_cutmix.augment.graph import augment as apply_policies
from dali_cutmix.augment.policies import Policy, RandomErasing
from dali_cutmix.data import images as pixels
from dali_cutmix.data.images import decode
from dali_cutmix.data.pixel_format import PixelFormat, ReadAs
from dali_cutmix.data.readers import read, read_with_maps
from dali_cutmix.data.saliency import follow
from dali_cutmix.data.sources import Source, filled
from dali_cutmix.mixing.api import Batch, mix_batch
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.followers.labels import class_indices
from dali_cutmix.mixing.methods import Cutout
from dali_cutmix.mixing.plan import MixParams
from dali_cutmix.recipes import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Stage", "decode", "train", "val"]

Stage = Literal["read", "decode", "augment"]


@pipeline_def
def train(
    source: Source | str,
    mix: MixConfig | None = None,
    *,
    augment: Sequence[Policy] = (),
    erase: RandomErasing | None = None,
    erase_after_mix: bool = False,
    repeats: int = 1,
    partners: Source | None = None,
    shuffle: bool = True,
    num_classes: int | None = None,
    channels: int = 3,
    read_as: ReadAs = "uint8",
    device: str = "cpu",
    size: tuple[int, int] = (224, 224),
    area: Sequence[float] = (0.08, 1.0),
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
    with_params: bool = False,
    mixing: Callable[[], Any] | None = None,
    until: Stage | None = None,
) -> tuple[DataNode, ...]:
    """Returns normalised images and their targets; for the arguments see `train_loader`.

    Crop, flip and mix have seeds of their own, made from the pipeline's seed and the shard.
    ``with_params`` adds what was mixed, a sample: lam, box, label and partner's label. `mixing`
    is asked for every batch whether it is to be mixed, see `Loader`; without it nothing is fed.
    `partners`, a second source, is read beside the first, with draws of its own: sample i is mixed
    with sample i of it. `until` ends the graph after a stage, for profiles: images, or their files,
    and labels.
    """
    to = PixelFormat(channels, read_as)
    seed = Pipeline.current().seed or 0
    cropped = partial(
        _cropped,
        augment=augment,
        shuffle=shuffle,
        num_classes=num_classes if mix is None else mix.num_classes,
        to=to,
        device=device,
        size=size,
        area=area,
        ratio=ratio,
        interpolation=interpolation,
        antialias=antialias,
        hflip=hflip,
        mean=mean,
        shard_id=shard_id,
        num_shards=num_shards,
        hw_decoder_load=hw_decoder_load,
    )
    images, labels, maps = cropped(source, repeats=repeats, seed=seed, until=until)
    if until is not None:
        return images, labels
    others, other_labels, other_seed = None, None, op_seed(seed, "partners")
    if partners is not None:
        others, other_labels, _ = cropped(partners, name="partners", seed=other_seed, full=True)

    if mix is None:
        labels = _as_yielded(labels, source)
    own_seed = op_seed(op_seed(seed, shard_id), "mix")
    if mix is not None and erase is not None and not erase_after_mix:  # they are normalised before
        mix = _of_normalised(mix, mean, std, to.white)
    mixed = partial(_mixed, labels, maps, other_labels, mix, [*size, channels], mixing, own_seed)
    normalise = partial(pixels.normalise, mean=mean, std=std, white=to.white)
    if erase is None:
        images, *targets, params = mixed(images, others, dtype=read_as)
        images = normalise(images, dtype=dtype, layout=layout)
    else:
        erased = partial(
            erase_boxes, erasing=erase, size=size, channels=channels, shard_id=shard_id
        )
        own = op_seed(seed, "erase")
        if erase_after_mix:
            images, *targets, params = mixed(images, others, dtype=read_as)
            images = erased(normalise(images), seed=own)
        else:
            if others is not None:
                others = erased(normalise(others), seed=op_seed(other_seed, "erase"))
            images = erased(normalise(images), seed=own)
            images, *targets, params = mixed(images, others, dtype="float32")
        images = pixels.convert(images, dtype, layout)
    if params is not None and with_params:
        targets += _what_was_mixed(params, labels, other_labels, source)
    return images, *targets


@pipeline_def
def val(
    source: Source | str,
    *,
    num_classes: int | None = None,
    channels: int = 3,
    read_as: ReadAs = "uint8",
    device: str = "cpu",
    size: tuple[int, int] = (224, 224),
    resize: int = 256,
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
    """Returns normalised images and integer labels; for the arguments see `val_loader`."""
    encoded, labels = read(
        source, shuffle=False, shard_id=shard_id, num_shards=num_shards, num_classes=num_classes
    )
    to = PixelFormat(channels, read_as)
    images = decode(encoded, device, hw_decoder_load, to)
    start, end = pixels.centre_crop(encoded, size, resize)
    resized = fn.resize(
        images,
        size=size,
        roi_start=start,
        roi_end=end,
        interp_type=pixels.INTERPOLATION[interpolation],
        antialias=antialias,
    )
    images = cast("DataNode", resized)  # by its annotation it may be several, or None
    images = pixels.normalise(
        images, mean=mean, std=std, dtype=dtype, layout=layout, white=to.white
    )
    return images, _to_device(_as_yielded(labels, source), device)


@graph_function
def _cropped(
    source: Source | str,
    *,
    augment: Sequence[Policy],
    shuffle: bool,
    num_classes: int | None,
    to: PixelFormat,
    device: str,
    size: tuple[int, int],
    area: Sequence[float],
    ratio: Sequence[float],
    interpolation: str,
    antialias: bool,
    hflip: float,
    mean: Sequence[float],
    seed: int,
    shard_id: int,
    num_shards: int,
    hw_decoder_load: float,
    repeats: int = 1,
    name: str = "reader",
    full: bool = False,
    until: Stage | None = None,
) -> tuple[DataNode, DataNode, DataNode | None]:
    """Returns images as they are mixed, HWC, their labels, and their maps, where they have some.

    Args:
        full: an epoch has no padding, see `sources.filled`.
    """
    if full and isinstance(source, Source):
        source = filled(source, Pipeline.current().max_batch_size * num_shards)
    own: dict[str, Any] = {"seed": seed, "shard_id": shard_id}
    encoded, labels, maps = read_with_maps(
        source,
        shuffle=shuffle,
        num_shards=num_shards,
        num_classes=num_classes,
        repeats=repeats,
        name=name,
        **own,
    )
    if until == "read":
        return encoded, labels, maps
    start, shape = pixels.random_crop(encoded, area=area, ratio=ratio, **own)
    images = pixels.decode_part(encoded, start, shape, device, hw_decoder_load, to)
    if until == "decode":
        return images, labels, maps
    width = pixels.signed_width(size, hflip, **own)
    images = pixels.resize(
        images, size, width, interpolation=interpolation, antialias=antialias, **own
    )
    if maps is not None:
        maps = follow(maps, start, shape, pixels.shape_of(encoded)[:2], width)
    if augment:
        fill = [round(255 * m) for m in mean]
        images = apply_policies(images, augment, size=size, fill=fill, **own)
    return images, labels, maps


def _of_normalised(
    cfg: MixConfig, mean: Sequence[float], std: Sequence[float], white: int
) -> MixConfig:
    """Returns the configuration of what is mixed after it is normalised: Cutout's fill is too."""
    scale = [white * m for m in mean], [white * s for s in std]
    methods = (m.normalised(*scale) if isinstance(m, Cutout) else m for m in cfg.methods)
    return dataclasses.replace(cfg, methods=tuple(methods))


@graph_function
def _mixed(
    labels: DataNode,
    maps: DataNode | None,
    other_labels: DataNode | None,
    cfg: MixConfig | None,
    shape: list[int],
    mixing: Callable[[], Any] | None,
    seed: int,
    images: DataNode,
    others: DataNode | None,
    dtype: Literal["uint8", "float32"] = "uint8",
) -> tuple[Any, ...]:
    """Returns the images, their targets on their device, and what was mixed, or None.

    Images of this graph and labels of `read` need none of mix()'s checks.
    """
    if cfg is None:
        return images, _to_device(labels, images.device), None
    enabled = None if mixing is None else fn.external_source(source=mixing, batch=True)
    partners = None if others is None else (others, other_labels)
    batch = Batch(images, labels, shape, dtype, partners)
    seen = maps if cfg.by_saliency else None
    mixed = mix_batch(batch, cfg, enabled=enabled, saliency=seen, seed=seed, keep_order=False)
    targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
    return mixed.images, *targets, mixed.params


def _to_device(x: DataNode, device: str) -> DataNode:
    return x.gpu() if device == "gpu" else x


@graph_function
def _as_yielded(labels: DataNode, source: Source | str) -> DataNode:
    """Returns labels as int64 (), or the rows of a source with targets as they are."""
    if isinstance(source, Source) and source.targets is not None:
        return labels
    return class_indices(labels)


@graph_function
def _what_was_mixed(
    params: MixParams, labels: DataNode, other_labels: DataNode | None, source: Source | str
) -> list[DataNode]:
    """Returns lam, box, label and partner's label, on the CPU, and whether there is a partner."""
    own, other = labels, other_labels
    if params.original is not None:
        own = fn.permute_batch(labels, indices=params.original)
    assert params.box is not None
    if other is None:
        assert params.partner is not None
        other = fn.permute_batch(labels, indices=params.partner)
    paired = [] if params.paired is None else [params.paired]
    labels_of_both = [_as_yielded(own, source), _as_yielded(other, source)]
    return [params.lam, params.box, *labels_of_both, *paired]
