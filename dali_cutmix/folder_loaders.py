"""Loaders of ImageFolders: the ImageNet pipelines as iterables of torch tensors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch

from dali_cutmix.config import (
    MixConfig,
    checked_choice,
    checked_int,
    checked_numbers,
    checked_share,
)
from dali_cutmix.folders import class_names
from dali_cutmix.loader import Loader
from dali_cutmix.pipelines import imagenet

__all__ = ["device_id", "train_loader", "val_loader"]

_MAX_SIDE = 2**15


def train_loader(
    root: str | os.PathLike[str],
    *,
    batch_size: int,
    mix: MixConfig | None = None,
    size: int | tuple[int, int] = 224,
    device: Literal["gpu", "cpu"] = "gpu",
    seed: int = 0,
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    area: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    antialias: bool = True,
    hflip: float = 0.5,
    mean: Sequence[float] = imagenet.IMAGENET_MEAN,
    std: Sequence[float] = imagenet.IMAGENET_STD,
    prefetch_queue_depth: int = 2,
    hw_decoder_load: float = 0.65,
    with_params: bool = False,
    switchable: bool = False,
) -> Loader:
    """Returns a loader of training batches from an ImageFolder: decode, crop, flip, mix, normalise.

    Yields ``(images, targets)`` on the device: images float32 or float16, (N, 3, H, W); targets
    float32 (N, K), or ``(label_a, label_b, lam)`` with ``targets="pair"``, or int64 (N,) without
    `mix`. All batches are full; the last, incomplete one of an epoch is dropped. The whole data
    set is shuffled anew every epoch, and the same on every shard.

    Args:
        root: folder with one folder of images a class.
        batch_size: samples a batch, of this shard.
        mix: how to mix; None for no mixing. ``num_classes`` is that of the folder where not given.
        size: side, or (H, W), of the images.
        device: ``"gpu"`` decodes with nvJPEG and does the rest on the GPU.
        seed: at least 0. The same seed gives the same stream.
        shard_id, num_shards: this process's part; by default from torch.distributed, or
            torchrun's environment, or all.
        num_threads: of DALI; by default the cores this process may use, at most 16.
        dtype, layout: of the images; with ``"NHWC"`` the tensors are (N, 3, H, W) in
            torch.channels_last, without a copy.
        area, ratio: range of the crop's share of the image and of its aspect ratio
            (torchvision's defaults).
        interpolation, antialias: of the resize.
        hflip: probability of a horizontal flip.
        mean, std: for images in [0, 1]; ImageNet's by default.
        prefetch_queue_depth: batches prepared ahead.
        hw_decoder_load: share of the images for the GPU's JPEG hardware, where it has one.
        with_params: for looking into a batch: after the targets, also yield what was mixed, on
            the CPU: lam float32 (N,), box int32 (N, 4), and the labels of the sample and its
            partner, int64 (N,).
        switchable: makes ``loader.mixing(False)`` work, for schedules that end without mixing.

    Raises:
        FileNotFoundError: `root` does not exist or lacks images.
        TypeError, ValueError: an argument is wrong, `device` is not there, or the first batch
            shows a damaged file.

    >>> with train_loader(photo_folder, batch_size=16, size=32, device="cpu",
    ...                   mix=MixConfig()) as loader:
    ...     for images, targets in loader:
    ...         pass
    >>> images.shape, targets.shape
    (torch.Size([16, 3, 32, 32]), torch.Size([16, 5]))
    """
    classes = class_names(root)
    if mix is not None:
        mix = _with_classes(mix, len(classes))
    options = _checked(
        root=root,
        batch_size=batch_size,
        size=size,
        device=device,
        seed=seed,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        layout=layout,
        interpolation=interpolation,
        antialias=antialias,
        mean=mean,
        std=std,
        prefetch_queue_depth=prefetch_queue_depth,
        hw_decoder_load=hw_decoder_load,
    )
    if mix is None and (with_params or switchable):
        name = "with_params" if with_params else "switchable"
        raise ValueError(f"`{name}` must be False where `mix` is None: nothing is mixed.")
    for name, bounds in (("area", area), ("ratio", ratio)):
        low, high = checked_numbers(name, bounds, 2)
        if not 0 < low <= high:
            raise ValueError(f"`{name}` must be (low, high) with 0 < low <= high, got {bounds!r}.")
        options[name] = (low, high)
    if options["area"][1] > 1:
        raise ValueError(f"`area` must be within (0, 1], got {area!r}.")
    loader = Loader(
        imagenet.train,
        channels_last=layout == "NHWC",
        switchable=bool(switchable),
        mix=mix,
        hflip=checked_share("hflip", hflip),
        with_params=bool(with_params),
        **options,
    )
    loader.classes = tuple(classes)
    return loader


def val_loader(
    root: str | os.PathLike[str],
    *,
    batch_size: int,
    size: int | tuple[int, int] = 224,
    resize: int = 256,
    classes: Sequence[str] | None = None,
    device: Literal["gpu", "cpu"] = "gpu",
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    antialias: bool = True,
    mean: Sequence[float] = imagenet.IMAGENET_MEAN,
    std: Sequence[float] = imagenet.IMAGENET_STD,
    prefetch_queue_depth: int = 2,
    hw_decoder_load: float = 0.65,
) -> Loader:
    """Returns a loader of validation batches: decode, resize, centre crop, normalise. Never mixes.

    Yields ``(images, labels)``: images as `train_loader` does, labels int64 (N,). Every image
    comes once an epoch, in the order of the folder; the last batch may be smaller.

    Args:
        size: side, or (H, W), of the centre crop.
        resize: length of the shorter side before the crop; at least `size`.
        classes: the classes of training (``train.classes``). Labels number the folders, so a
            folder with other classes has other labels; it is refused.

    The other arguments and the errors are those of `train_loader`.

    >>> with val_loader(photo_folder, batch_size=16, size=32, resize=36, device="cpu") as loader:
    ...     print(sum(len(labels) for images, labels in loader))
    80
    """
    found = class_names(root)
    if classes is not None and not (
        isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    ):
        raise TypeError(f"`classes` must be a list of class names, got {classes!r}.")
    if classes is not None and list(classes) != found:
        other = sorted(set(classes) ^ set(found))
        raise ValueError(
            f"`classes` must be the {len(found)} class folders of `root`, got {len(classes)} "
            f"that differ in {', '.join(map(repr, other[:5])) or 'order'}."
        )
    options = _checked(
        root=root,
        batch_size=batch_size,
        size=size,
        device=device,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        layout=layout,
        interpolation=interpolation,
        antialias=antialias,
        mean=mean,
        std=std,
        prefetch_queue_depth=prefetch_queue_depth,
        hw_decoder_load=hw_decoder_load,
    )
    options["resize"] = checked_int("resize", resize, 1, _MAX_SIDE)
    if resize < max(options["size"]):
        raise ValueError(f"`resize` must be at least `size`, got resize={resize} and size={size}.")
    loader = Loader(
        imagenet.val,
        last_batch="partial",
        channels_last=layout == "NHWC",
        **options,
    )
    loader.classes = tuple(found)
    return loader


def _with_classes(mix: MixConfig, found: int) -> MixConfig:
    if not isinstance(mix, MixConfig):
        raise TypeError(f"`mix` must be a MixConfig or None, got {mix!r}.")
    if mix.labels != "int":
        raise ValueError('`labels` must be "int" for a folder of classes, got "float".')
    if mix.num_classes is None:
        return dataclasses.replace(mix, num_classes=found)
    if mix.num_classes < found:
        raise ValueError(
            f"`num_classes` must be at least the {found} class folders of `root`, "
            f"got {mix.num_classes}."
        )
    return mix


def _checked(**options: Any) -> dict[str, Any]:
    """Returns the options that both pipelines take, checked and filled in."""
    options["root"] = os.fsdecode(options["root"])
    size = options["size"]
    pair = list(size) if isinstance(size, (tuple, list)) else [size, size]
    if len(pair) != 2:
        raise ValueError(f"`size` must be an int or (H, W), got {size!r}.")
    options["size"] = tuple(checked_int("size", side, 1, _MAX_SIDE) for side in pair)
    if options["num_threads"] is None:
        options["num_threads"] = min(16, len(os.sched_getaffinity(0)))
    for name in ("batch_size", "num_threads", "prefetch_queue_depth"):
        options[name] = checked_int(name, options[name], 1)
    if "seed" in options:
        options["seed"] = checked_int("seed", options["seed"], 0, 2**63 - 1)
    checked_choice("device", options["device"], ("gpu", "cpu"))
    checked_choice("dtype", options["dtype"], imagenet.DTYPE)
    checked_choice("layout", options["layout"], imagenet.LAYOUT)
    checked_choice("interpolation", options["interpolation"], imagenet.INTERPOLATION)
    if not isinstance(options["antialias"], bool):
        raise TypeError(f"`antialias` must be a bool, got {options['antialias']!r}.")
    for name in ("mean", "std"):
        options[name] = checked_numbers(name, options[name], 3)
    if min(options["std"]) <= 0:
        raise ValueError(f"`std` must be above 0, got {options['std']}.")
    options["hw_decoder_load"] = checked_share("hw_decoder_load", options["hw_decoder_load"])
    options["shard_id"], options["num_shards"] = _shard(options["shard_id"], options["num_shards"])
    options["device_id"] = device_id(options["device"])
    return options


def device_id(device: str) -> int | None:
    """Returns DALI's device_id: torch's current GPU for "gpu", None for "cpu".

    Raises:
        ValueError: there is no GPU that torch can use.
    """
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        raise ValueError(
            '`device` must be "cpu" on this machine, got "gpu": torch finds no CUDA GPU.'
        )
    return torch.cuda.current_device()


def _shard(shard_id: int | None, num_shards: int | None) -> tuple[int, int]:
    """Returns (shard_id, num_shards): as given, or of torch.distributed, or of torchrun, or all."""
    if (shard_id is None) != (num_shards is None):
        raise ValueError(
            "`shard_id` and `num_shards` must be given together, "
            f"got shard_id={shard_id} and num_shards={num_shards}."
        )
    if shard_id is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        ranks = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        if ranks == (None, None):
            return 0, 1
        if not all(text is not None and text.isdecimal() for text in ranks):
            raise ValueError(
                "RANK and WORLD_SIZE of the environment must be numbers, both, got "
                f"{ranks[0]!r} and {ranks[1]!r}: pass `shard_id` and `num_shards`."
            )
        shard_id, num_shards = (int(text or "") for text in ranks)
    num_shards = checked_int("num_shards", num_shards, 1)
    shard_id = checked_int("shard_id", shard_id, 0)
    if shard_id >= num_shards:
        raise ValueError(
            f"`shard_id` must be in [0, num_shards), got {shard_id} of {num_shards} shards."
        )
    return shard_id, num_shards
