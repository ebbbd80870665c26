"""segmentation_loader: images with a mask each, as an iterable of torch tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

from dali_cutmix._validation import (
    checked_bool,
    checked_choice,
    checked_fraction,
    checked_int,
    checked_numbers,
)
from dali_cutmix.data.formats.paths import Paths
from dali_cutmix.data.images import INTERPOLATION
from dali_cutmix.data.sources import Source, find_source, unchecked_source
from dali_cutmix.loaders._arguments import (
    Device,
    OnError,
    blending_methods,
    check_mix,
    check_needs,
    checked_options,
    checked_sides,
    look_at_a_few,
    without_damaged,
)
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.pipelines import segmentation
from dali_cutmix.recipes import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["segmentation_loader"]

Blend = Literal["refuse", "heavier"]


def segmentation_loader(
    images: Paths | Sequence[Paths] | Source,
    masks: Paths | None = None,
    *,
    batch_size: int,
    training: bool = True,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    ignore_index: int = 255,
    mask_names: tuple[str, str] | None = None,
    mix: MixConfig | None = None,
    blend: Blend = "refuse",
    even: bool = True,
    size: int | tuple[int, int] = 512,
    area: Sequence[float] = (0.25, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    resize: int | None = None,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    hflip: float = 0.5,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    shuffle: bool = True,
    on_error: OnError = "raise",
    device: Device = "gpu",
    seed: int = 0,
    start_epoch: int = 0,
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    antialias: bool = True,
    prefetch_queue_depth: int = 2,
    hw_decoder_load: float = 0.65,
    switchable: bool = False,
) -> Loader:
    """Returns a loader of images with their masks, cropped, flipped and mixed alike.

    Yields ``(images, masks)`` on the device: images float32 or float16, (N, 3, H, W); masks int64
    (N, H, W), class indices as they stand in the files. Masks are resized to nearest pixels and
    mixed by copying, never averaged.

    For training: a random resized crop, a flip, `mix`; all batches are full, the last, incomplete
    one of an epoch is dropped. With ``training=False`` nothing is random and nothing is mixed: the
    shorter side is resized to `resize` and the centre of `size` is cut; every image comes once, in
    order, and the last batch may be smaller.

    Args:
        images: a folder of images (also in folders inside), a list of them, or paths; or what
            ``find_source(images, masks=…)`` returned, which has more options, such as `subset`.
        masks: the folder of the masks: ``x/1.png`` for ``x/1.jpg``. Gray images of 8 or 16 bits, a
            class index per pixel, in a format that keeps values. A missing one is an error that
            names it, and so is one of another size or kind, when it is read at the latest. Images
            are turned upright as their EXIF tag says, and masks are to be those of upright images.
        batch_size: samples per batch, of this shard.
        training: else the loader is one for validation.
        num_classes: number of classes: values in the masks must be below it, or `ignore_index`,
            which is checked of every crop. By default anything may be there.
        classes: their names, for ``loader.classes``.
        ignore_index: the value of pixels without a class.
        mask_names: where the names of images and masks differ: how both end, such as
            ``("_leftImg8bit.png", "_gtFine_labelIds.png")``.
        mix: how images are mixed, and the masks with them; None for no mixing. Only what says how
            pixels are mixed counts: there are no labels.
        blend: where `mix` has MixUp: ``"refuse"``, since classes cannot be averaged, or
            ``"heavier"``, the mask of the image with the larger share.
        even: for validation on several shards, one of which may have an image less: its last one
            comes twice, the first time with all of its mask `ignore_index`, so that every shard has
            the same batches and a collective in each does not hang.
        size: side, or (H, W), of the images that are yielded.
        area, ratio: range of the crop's fraction of the image, and of width by height.
        resize: for validation, length of the shorter side, at least `size`; by default the larger
            side of `size`.
        interpolation: of the images.
        hflip: probability of a horizontal flip.
        mean, std: of the channels, for images in [0, 1].
        shuffle, on_error, device, seed, start_epoch, shard_id, num_shards: see `train_loader`.
        num_threads, dtype, layout, antialias, prefetch_queue_depth, hw_decoder_load, switchable:
            see `train_loader`.

    Raises:
        FileNotFoundError: a folder does not exist, or a mask is missing.
        TypeError, ValueError: an argument is wrong, a mask cannot be used, or the first batch
            shows a damaged file.

    >>> with segmentation_loader(photo_folder, photo_masks, batch_size=16, size=32, device="cpu",
    ...                          mix=MixConfig()) as loader:
    ...     for images, masks in loader:
    ...         pass
    >>> images.shape, masks.shape, masks.dtype
    (torch.Size([16, 3, 32, 32]), torch.Size([16, 32, 32]), torch.int64)
    """
    for name, flag in (
        *(("training", training), ("shuffle", shuffle)),
        *(("switchable", switchable), ("antialias", antialias), ("even", even)),
    ):
        checked_bool(name, flag)
    checked_choice("blend", blend, get_args(Blend))
    checked_choice("interpolation", interpolation, INTERPOLATION)
    sides = checked_sides(size)
    options: dict[str, Any] = {
        "size": sides,
        "interpolation": interpolation,
        "mean": checked_numbers("mean", mean, 3),
        "std": checked_numbers("std", std, 3),
    }
    if not min(options["std"]) > 0:
        raise ValueError(f"`std` must be above 0, got {std!r}.")
    if training:
        options |= _checked_training(mix, blend, area, ratio, hflip, shuffle, switchable)
        options["seed"] = seed
        if resize is not None:
            raise ValueError(f"`resize` must be left out for training, got {resize}.")
    else:
        options["resize"] = _checked_resize(resize, sides)
        if mix is not None or switchable:
            raise ValueError("`mix` and `switchable` must be left out with `training=False`.")
    options = checked_options(
        on_error=on_error,
        batch_size=batch_size,
        device=device,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        layout=layout,
        antialias=antialias,
        prefetch_queue_depth=prefetch_queue_depth,
        hw_decoder_load=hw_decoder_load,
        **options,
    )
    source = _found(images, masks, mask_names, classes, checked=on_error == "raise")
    count = (
        source.num_classes if num_classes is None else checked_int("num_classes", num_classes, 1)
    )
    if source.num_classes is not None and count != source.num_classes:
        raise ValueError(
            f"`num_classes` must be that of `classes`, {source.num_classes}, got {count}."
        )
    assert source.masks is not None
    values = source.masks._replace(
        num_classes=count, ignore_index=checked_int("ignore_index", ignore_index, 0, 2**16 - 1)
    )
    source = dataclasses.replace(source, masks=values)
    skipped: tuple[str, ...] = ()
    if options.pop("on_error") == "skip":
        source, skipped = without_damaged(source)
    else:
        look_at_a_few(source)
    alone = options.pop("_alone")
    loader = Loader(
        segmentation.train if training else segmentation.val,
        source=source,
        last_batch="drop" if training else "partial",
        even=even and not training,
        ignore_index=values.ignore_index,
        channels_last=layout == "NHWC",
        switchable=switchable,
        start_epoch=start_epoch,
        **options,
    )
    loader.classes, loader.num_classes, loader.skipped = source.classes, count, skipped
    loader._alone = alone
    return loader


def _checked_training(
    mix: Any,
    blend: str,
    area: Any,
    ratio: Any,
    hflip: Any,
    shuffle: bool,
    switchable: bool,
) -> dict[str, Any]:
    """Returns the arguments of training's pipeline alone, checked."""
    check_mix(mix, switchable=switchable)
    if mix is not None:
        check_needs(mix, masks=True)
    if mix is not None and blend == "refuse" and (blending := blending_methods(mix)):
        raise ValueError(
            f'`blend` must be "heavier" where `mix` has {blending[0]}, got "refuse": classes '
            "cannot be averaged. With it the mask of the image with the larger share is shown."
        )
    options: dict[str, Any] = {"hflip": checked_fraction("hflip", hflip), "shuffle": shuffle}
    for name, value in (("area", area), ("ratio", ratio)):
        low, high = options[name] = checked_numbers(name, value, 2)
        if not 0 < low <= high:
            raise ValueError(f"`{name}` must be (low, high) with 0 < low <= high, got {value!r}.")
    if options["area"][1] > 1:
        raise ValueError(f"`area` must be within (0, 1], got {area!r}.")
    return {**options, "mix": mix, "blend": blend}


def _checked_resize(resize: int | None, size: tuple[int, int]) -> int:
    if resize is None:
        return max(size)
    resize = checked_int("resize", resize, 1)
    if resize < max(size):
        raise ValueError(f"`resize` must be at least `size`, got {resize} and {size}.")
    return resize


def _found(images: Any, masks: Any, mask_names: Any, classes: Any, *, checked: bool) -> Source:
    if not isinstance(images, Source):
        if masks is None:
            raise TypeError("`masks` must be given with `images`, got None.")
        if not checked:  # all of them are looked at
            return unchecked_source(images, masks=masks, mask_names=mask_names, classes=classes)
        return find_source(images, masks=masks, mask_names=mask_names, classes=classes)
    for name, value in (("masks", masks), ("mask_names", mask_names), ("classes", classes)):
        if value is not None:
            raise ValueError(f"`{name}` must be given to find_source, which made the source.")
    if images.masks is None:
        raise ValueError("`images` must be a source with masks: find_source(…, masks=…).")
    return images
