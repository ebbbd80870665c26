"""ImageNet-style classification, from the reader to the tensor: `train` and `val`.

    JPEG files -> decode -> random resized crop -> flip -> mix -> normalise      (train)
    JPEG files -> decode -> resize -> centre crop -> normalise                   (val)

One definition serves both devices. With ``device="gpu"`` nvJPEG decodes ("mixed") and everything
after it runs on the GPU. Both read an ImageFolder: one folder a class, classes in sorted order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_cutmix.config import MixConfig
from dali_cutmix.folders import IMAGE_PATTERNS
from dali_cutmix.mixing import mix as mix_batch
from dali_cutmix.sampling import op_seed

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "decode", "train", "val"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
DTYPE = {"float32": types.FLOAT, "float16": types.FLOAT16}
LAYOUT = {"NCHW": "CHW", "NHWC": "HWC"}


@pipeline_def
def train(
    root: str,
    mix: MixConfig | None = None,
    *,
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
) -> tuple[DataNode, ...]:
    """Returns normalised images and their targets; for the arguments see `train_loader`.

    Crop, flip and mix have seeds of their own, made from the pipeline's seed and the shard.
    ``with_params`` adds what was mixed, a sample: lam, box, label and partner's label. `mixing`
    is asked for every batch whether it is to be mixed, see `Loader`; without it nothing is fed.
    """
    seed = Pipeline.current().seed or 0
    encoded, labels = fn.readers.file(
        name="reader",
        file_root=root,
        file_filters=IMAGE_PATTERNS,
        shuffle_after_epoch=True,  # the whole list, every epoch, the same on every shard
        shuffle_after_epoch_seed=op_seed(seed, "order") % 2**31,
        shard_id=shard_id,
        num_shards=num_shards,
        pad_last_batch=True,
    )
    start, shape = fn.random_crop_generator(
        fn.peek_image_shape(encoded),
        random_area=area,
        random_aspect_ratio=ratio,
        num_attempts=10,
        seed=op_seed(seed, "crop", shard_id),
    )
    # Crop, then resize what was cropped, as torchvision does. fn.random_resized_crop lets the
    # filter see pixels outside the crop.
    if device == "gpu":
        images = decode(encoded, device, hw_decoder_load)
        images = fn.slice(images, start=start, shape=shape, axes=[0, 1])
    else:
        images = fn.decoders.image_slice(encoded, start, shape, axes=[0, 1])
    images = fn.resize(
        images, size=size, interp_type=INTERPOLATION[interpolation], antialias=antialias
    )
    mirror = fn.random.coin_flip(probability=hflip, seed=op_seed(seed, "flip", shard_id))
    if mix is None:
        return _normalise(images, mean, std, dtype, layout, mirror=mirror), _index(labels, device)

    images = fn.flip(images, horizontal=mirror)
    enabled = None if mixing is None else fn.external_source(source=mixing, batch=True)
    mixed = mix_batch(
        images, labels, mix, enabled=enabled, seed=op_seed(seed, shard_id), keep_order=False
    )
    targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
    outputs = (_normalise(mixed.images, mean, std, dtype, layout), *targets)
    if with_params:
        params = mixed.params
        own = labels
        if params.original is not None:
            own = fn.permute_batch(labels, indices=params.original)
        other = fn.permute_batch(labels, indices=params.partner)
        outputs += (params.lam, params.box, _index(own, "cpu"), _index(other, "cpu"))
    return outputs


@pipeline_def
def val(
    root: str,
    *,
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
    encoded, labels = fn.readers.file(
        name="reader",
        file_root=root,
        file_filters=IMAGE_PATTERNS,
        shard_id=shard_id,
        num_shards=num_shards,
        stick_to_shard=True,
        pad_last_batch=True,
    )
    images = decode(encoded, device, hw_decoder_load)
    images = fn.resize(
        images,
        resize_shorter=resize,
        interp_type=INTERPOLATION[interpolation],
        antialias=antialias,
    )
    return _normalise(images, mean, std, dtype, layout, crop=size), _index(labels, device)


def decode(encoded: DataNode, device: str, hw_decoder_load: float = 0.65) -> DataNode:
    """Returns whole RGB images, uint8 HWC: by nvJPEG for ``"gpu"``, by libjpeg-turbo for ``"cpu"``.

    On the CPU the header is read first, because fn.decoders.image can crash the process where a
    file is no image at all (DALI 2.4.0).
    """
    if device == "gpu":
        return fn.decoders.image(encoded, device="mixed", hw_decoder_load=hw_decoder_load)
    shape = fn.peek_image_shape(encoded)[:2]
    return fn.decoders.image_slice(encoded, shape * 0, shape, axes=[0, 1])


def _normalise(
    images: DataNode,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: str,
    layout: str,
    **crop_or_mirror: Any,
) -> DataNode:
    """Returns (images / 255 - mean) / std."""
    return fn.crop_mirror_normalize(
        images,
        dtype=DTYPE[dtype],
        output_layout=LAYOUT[layout],
        mean=[255 * m for m in mean],
        std=[255 * s for s in std],
        **crop_or_mirror,
    )


def _index(labels: DataNode, device: str) -> DataNode:
    labels = fn.cast(fn.reshape(labels, shape=[]), dtype=types.INT64)
    return labels.gpu() if device == "gpu" else labels
