"""ImageNet-style classification, from the reader to the tensor: `train` and `val`.

    read -> decode -> random resized crop -> flip -> augment -> mix -> normalise      (train)
    read -> decode -> resize -> centre crop -> normalise                              (val)

One definition serves both devices. With ``device="gpu"`` nvJPEG decodes ("mixed") and everything
after it runs on the GPU. Random erasing works on normalised images, after mixing or, as most
recipes have it, before; then floats are mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix import checks
from dali_cutmix.config import MixConfig
from dali_cutmix.mixing import Mixed, mix_known
from dali_cutmix.pipelines import augment as augmentation
from dali_cutmix.pipelines import erasing
from dali_cutmix.pipelines.readers import read
from dali_cutmix.policies import Policy, RandomErasing
from dali_cutmix.recipes import IMAGENET_MEAN, IMAGENET_STD
from dali_cutmix.sampling import by_place, op_seed
from dali_cutmix.sources import Source, find_source

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Stage", "decode", "train", "val"]

Stage = Literal["read", "decode", "augment"]

INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
DTYPE = {"float32": types.FLOAT, "float16": types.FLOAT16}
LAYOUT = {"NCHW": "CHW", "NHWC": "HWC"}


@pipeline_def
def train(
    source: Source | str,
    mix: MixConfig | None = None,
    *,
    augment: Sequence[Policy] = (),
    erase: RandomErasing | None = None,
    erase_after_mix: bool = False,
    repeats: int = 1,
    num_classes: int | None = None,
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
    `until` ends the graph after a stage, for profiles: images, or their files, and labels.
    """
    seed = Pipeline.current().seed or 0
    classes = num_classes if mix is None else mix.num_classes
    encoded, labels = _read(
        source, classes, shuffle=True, seed=seed, shard_id=shard_id, num_shards=num_shards
    )
    if repeats > 1:  # before decoding: what is read is reused, and decoded and cropped anew
        places = [i // repeats for i in range(Pipeline.current().max_batch_size)]
        encoded, labels = by_place(encoded, places), by_place(labels, places)
    if until == "read":
        return encoded, labels
    images = _random_crop(
        encoded,
        device,
        hw_decoder_load,
        area=area,
        ratio=ratio,
        seed=op_seed(seed, "crop", shard_id),
    )
    if until == "decode":
        return images, labels
    images = fn.resize(
        images,
        resize_y=float(size[0]),
        resize_x=_mirrored_or_not(float(size[1]), hflip, op_seed(seed, "flip", shard_id)),
        interp_type=_drawn_interpolation(interpolation, op_seed(seed, "interpolation", shard_id)),
        antialias=antialias,
    )
    if augment:
        images = augmentation.augment(
            images,
            augment,
            size=size,
            seed=seed,
            shard_id=shard_id,
            fill=[round(255 * m) for m in mean],
        )
    if until == "augment":
        return images, labels
    colors = {"mean": mean, "std": std}
    floats = erase is not None and not erase_after_mix  # are mixed, else bytes
    mixed = None
    if mix is not None and not floats:
        mixed = _mixed(images, labels, mix, size, mixing, op_seed(seed, shard_id), "uint8")
        images = mixed.images
    if erase is None:
        images = _normalise(images, dtype=dtype, layout=layout, **colors)
    else:
        images = _normalise(images, dtype="float32", layout="NHWC", **colors)
        images = erasing.erase(
            images, erase, size=size, seed=op_seed(seed, "erase"), shard_id=shard_id
        )
    if mix is not None and floats:
        mixed = _mixed(images, labels, mix, size, mixing, op_seed(seed, shard_id), "float32")
        images = mixed.images
    if erase is not None:
        images = _as_asked(images, dtype, layout)
    if mixed is None:
        return images, _index(labels, device)
    targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
    return (images, *targets, *(_what_was_mixed(mixed, labels) if with_params else ()))


@pipeline_def
def val(
    source: Source | str,
    *,
    num_classes: int | None = None,
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
    encoded, labels = _read(
        source, num_classes, shuffle=False, shard_id=shard_id, num_shards=num_shards
    )
    images = decode(encoded, device, hw_decoder_load)
    start, end = _centre(encoded, size, resize)
    images = fn.resize(
        images,
        size=size,
        roi_start=start,
        roi_end=end,
        interp_type=INTERPOLATION[interpolation],
        antialias=antialias,
    )
    images = _normalise(images, mean=mean, std=std, dtype=dtype, layout=layout)
    return images, _index(labels, device)


def decode(encoded: DataNode, device: str, hw_decoder_load: float = 0.65) -> DataNode:
    """Returns whole RGB images, uint8 HWC: by nvJPEG for ``"gpu"``, by libjpeg-turbo for ``"cpu"``.

    The header is read first, and a file that has none is an error: fn.decoders.image can crash the
    process where one is no image at all (DALI 2.4.0, on a GPU in large batches).
    """
    shape = _shape(encoded)
    if device == "gpu":
        # The decoder runs after what reads the header only where its input depends on it: -1, which
        # this always is, leaves the bytes as they are.
        length = dmath.min(shape[:1], -1)
        return fn.decoders.image(
            fn.reshape(encoded, shape=length),
            device="mixed",
            hw_decoder_load=hw_decoder_load,
            jpeg_fancy_upsampling=True,  # chroma is interpolated, as libjpeg-turbo does
        )
    return fn.decoders.image_slice(encoded, shape[:2] * 0, shape[:2], axes=[0, 1])


def _shape(encoded: DataNode) -> DataNode:
    """Returns (H, W, C) of each file's header, int32; DALI merges equal operators of a graph."""
    return fn.peek_image_shape(encoded, dtype=types.INT32)


def _centre(encoded: DataNode, size: tuple[int, int], resize: int) -> tuple[DataNode, DataNode]:
    """Returns start and end of the part of an image that a resize and a centre crop show.

    Float32, in pixels of the image. Resizing that part alone computes nothing that is cropped
    afterwards. The integers are torchvision's: the longer side is int(resize * long / short),
    the crop starts at round((side - size) / 2), halves to even. DALI's resize_shorter rounds, and
    its crop takes halves up: a pixel off in three image sizes of five.

    Raises:
        ValueError: the crop is larger than the resized image, where torchvision pads.
    """
    if resize < max(size):
        raise ValueError(f"`resize` must be at least `size`, got resize={resize} and size={size}.")
    shape = _shape(encoded)[:2]
    resized = shape * resize // fn.reductions.min(shape, axes=[0])
    sides = types.Constant(list(size), dtype=types.INT32)
    spare = resized - sides
    start = (spare + 1) // 4 + (spare + 2) // 4
    scale = shape / resized
    return start * scale, (start + sides) * scale


def _read(
    source: Source | str, num_classes: int | None, **options: Any
) -> tuple[DataNode, DataNode]:
    """Returns `read` of the source; fails where a label is not below the number of classes.

    Of a folder or a list, whose highest label is known, nothing need be looked at.
    """
    if not isinstance(source, Source):
        source = find_source(source)
    encoded, labels = read(source, **options)
    known = source.num_classes
    if num_classes is not None and (known is None or known > num_classes):
        labels = checks.class_index(labels, num_classes)
    return encoded, labels


def _random_crop(
    encoded: DataNode,
    device: str,
    hw_decoder_load: float,
    *,
    area: Sequence[float],
    ratio: Sequence[float],
    seed: int,
) -> DataNode:
    """Returns a random part of each image: uint8 HWC.

    To be resized afterwards, as torchvision does it. fn.random_resized_crop lets the filter see
    pixels outside the crop.
    """
    start, shape = fn.random_crop_generator(
        _shape(encoded),
        random_area=area,
        random_aspect_ratio=ratio,
        num_attempts=10,
        seed=seed,
    )
    if device == "gpu":
        images = decode(encoded, device, hw_decoder_load)
        return fn.slice(images, start=start, shape=shape, axes=[0, 1])
    return fn.decoders.image_slice(encoded, start, shape, axes=[0, 1])


def _mirrored_or_not(width: float, probability: float, seed: int) -> DataNode:
    """Returns the width to resize to: a negative one mirrors the image, at no cost."""
    return fn.random.choice([-width, width], p=[probability, 1 - probability], seed=seed)


def _drawn_interpolation(interpolation: str, seed: int) -> Any:
    """Returns the type of the resize: for all images, or for each one of the two, drawn."""
    if interpolation != "random":
        return INTERPOLATION[interpolation]
    coin = fn.random.coin_flip(seed=seed, dtype=types.INT32)
    low, high = (int(kind) for kind in INTERPOLATION.values())
    return fn.reinterpret(low + coin * (high - low), dtype=types.INTERP_TYPE)


def _normalise(
    images: DataNode,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: str,
    layout: str,
) -> DataNode:
    """Returns (images / 255 - mean) / std."""
    return fn.crop_mirror_normalize(
        images,
        dtype=DTYPE[dtype],
        output_layout=LAYOUT[layout],
        mean=[255 * m for m in mean],
        std=[255 * s for s in std],
    )


def _mixed(
    images: DataNode,
    labels: DataNode,
    mix: MixConfig,
    size: tuple[int, int],
    mixing: Callable[[], Any] | None,
    seed: int,
    dtype: Literal["uint8", "float32"],
) -> Mixed:
    enabled = None if mixing is None else fn.external_source(source=mixing, batch=True)
    return mix_known(
        images, labels, mix, size=size, enabled=enabled, seed=seed, keep_order=False, dtype=dtype
    )


def _as_asked(images: DataNode, dtype: str, layout: str) -> DataNode:
    """Returns float32 HWC images in the type and layout of the output.

    Always by one operator: erasing and mixing may end in a merged batch, whose samples lie apart,
    and DALI would make it contiguous by a copy for each image.
    """
    return fn.crop_mirror_normalize(
        images, dtype=DTYPE[dtype], output_layout=LAYOUT[layout], mean=[0.0], std=[1.0]
    )


def _index(labels: DataNode, device: str) -> DataNode:
    """Returns labels as int64 ()."""
    labels = fn.cast(fn.reshape(labels, shape=[]), dtype=types.INT64)
    return labels.gpu() if device == "gpu" else labels


def _what_was_mixed(mixed: Mixed, labels: DataNode) -> tuple[DataNode, ...]:
    """Returns lam, box, label and partner's label, on the CPU."""
    params = mixed.params
    own = labels
    if params.original is not None:
        own = fn.permute_batch(labels, indices=params.original)
    other = fn.permute_batch(labels, indices=params.partner)
    return params.lam, params.box, _index(own, "cpu"), _index(other, "cpu")
