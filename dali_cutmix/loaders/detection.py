"""detection_loader: images and the boxes of their objects, for training and for validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch

from dali_cutmix._validation import (
    checked_bool,
    checked_choice,
    checked_fraction,
    checked_numbers,
)
from dali_cutmix.data.images import INTERPOLATION
from dali_cutmix.data.sources import Source, find_source, unchecked_source
from dali_cutmix.loaders._arguments import (
    Device,
    OnError,
    check_mix,
    check_needs,
    checked_options,
    checked_sides,
    look_at_a_few,
    without_damaged,
)
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.pipelines import detection
from dali_cutmix.recipes import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["detection_loader"]

Paths = str | os.PathLike[str]
Crop = Literal["resize", "ssd"]
Targets = Literal["list", "padded"]


def detection_loader(
    images: Paths | Source,
    annotations: Paths | None = None,
    *,
    batch_size: int,
    size: int | tuple[int, int],
    training: bool = True,
    mix: MixConfig | None = None,
    keep: tuple[float, float] = (0.5, 0.5),
    crop: Crop = "resize",
    hflip: float = 0.5,
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    classes: Sequence[str] | None = None,
    targets: Targets = "list",
    even: bool = True,
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
    with_params: bool = False,
    switchable: bool = False,
) -> Loader:
    """Returns a loader of images and the boxes of their objects, as COCO annotates them.

    Yields ``(images, targets)``: images float32 or float16, (N, 3, H, W), on the device; targets as
    torchvision's detection models take them, a list of N dictionaries:

    - ``boxes`` float32 (n, 4): left, top, right and bottom in pixels of the image that is yielded;
      n may be 0;
    - ``labels`` int64 (n,), from 1: 0 is the background, of which ``loader.classes`` has the name;
    - ``image_id`` int64 (), on the CPU, as in the annotations; of a mixed image that of the
      original, not of what was pasted;
    - in validation ``original_size`` int64 (2,), on the CPU: (height, width) of the file.
      ``boxes * (original / yielded size)`` are boxes of the file.

    All images of a batch are stretched to one size: others cannot be mixed. In training the order
    is another one every epoch and the last, incomplete batch is dropped. Crowds are not read.

    Args:
        images: the folder of the images, or what `find_source` returned for ``annotations=``.
        annotations: JSON as COCO has it.
        batch_size: samples per batch, of this shard.
        size: side, or (H, W), of the images.
        training: False for validation: nothing random, nothing mixed, every image once, in order,
            in a last batch that may be smaller. `mix`, `crop`, `hflip`, `shuffle`, `start_epoch`,
            `with_params` and `switchable` are then not used, and must be left out.
        mix: how to mix; None for no mixing. What it says of targets has no meaning here.
        keep: the fractions by which boxes of the image and of its partner stay, see `mix_boxes`.
        crop: ``"resize"`` the whole image, or a random part of it, ``"ssd"``, drawn as SSD does.
        hflip: probability of a horizontal flip.
        interpolation: of the resize.
        mean, std: of the channels, of values in [0, 1]. torchvision's detection models normalise
            by themselves: pass mean 0 and std 1 to them.
        classes: the names of the classes by label, as ``train.classes`` has them; by default those
            of the annotations, in the order of their ids.
        targets: ``"list"``, or ``"padded"`` for one dictionary of tensors for the batch: boxes
            (N, M, 4) and labels (N, M), filled up with -1 to the largest number M, and ``counts``,
            ``image_id`` and ``original_size``, (N, …), on the CPU.
        even: for validation on several shards, one of which may have an image less: its last one
            comes twice, the first time without boxes and with ``image_id`` -1, so that every shard
            has the same batches and a collective in each does not hang.
        shuffle: False reads in the order of the source.
        on_error: ``"skip"``: images that are damaged or missing, or whose boxes are wrong, are left
            out, with a warning; ``loader.skipped`` names them. ``"raise"``: wrong annotations are
            an error now, and a damaged image one when it is read.
        with_params: for looking into a batch: targets also have, on the CPU, what was mixed:
            ``lam``, ``cut``, (y, x, h, w), and ``partner_id``.

    The other arguments are those of `train_loader`.

    Raises:
        FileNotFoundError: the annotations, or an image, are not there.
        TypeError, ValueError: an argument or the annotations are wrong, `device` is not there, or
            the first batch shows a damaged file. (That the sizes in the annotations are those of
            the files, `dali-cutmix check` and ``on_error="skip"`` see.)

    >>> with detection_loader(shape_folder, f"{shape_folder}/annotations.json", batch_size=16,
    ...                       size=96, mix=MixConfig(), device="cpu") as loader:
    ...     images, targets = next(iter(loader))
    >>> images.shape, len(targets), targets[0]["boxes"].shape[1], loader.classes
    (torch.Size([16, 3, 96, 96]), 16, 4, ('__background__', 'disc', 'square', 'triangle'))
    """
    size = checked_sides(size)
    for name, flag in (("training", training), ("even", even)):
        checked_bool(name, flag)
    checked_choice("targets", targets, get_args(Targets))
    checked_choice("interpolation", interpolation, INTERPOLATION)
    used: dict[str, Any] = {
        "size": size,
        "interpolation": interpolation,
        "mean": checked_numbers("mean", mean, 3),
        "std": checked_numbers("std", std, 3),
    }
    options = checked_options(
        on_error=on_error,
        batch_size=batch_size,
        device=device,
        seed=seed,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        layout=layout,
        antialias=antialias,
        prefetch_queue_depth=prefetch_queue_depth,
        hw_decoder_load=hw_decoder_load,
    )
    random: dict[str, Any] = {
        "mix": mix,
        "keep": keep,
        "crop": crop,
        "hflip": hflip,
        "shuffle": shuffle,
        "start_epoch": start_epoch,
        "with_params": with_params,
        "switchable": switchable,
    }
    if training:
        used |= _checked_random(random, options["batch_size"])
    else:
        _refuse_random(random)
    source, skipped = _found(images, annotations, classes, options.pop("on_error"))
    alone = options.pop("_alone")
    loader = Loader(
        detection.train if training else detection.val,
        last_batch="drop" if training else "partial",
        even=even and not training,
        mark=_without_objects,
        channels_last=layout == "NHWC",
        collate=_collate(targets, "params" if with_params else "" if training else "size"),
        source=source,
        **used,
        **options,
    )
    loader.classes, loader.num_classes = source.classes, source.num_classes
    loader.skipped, loader._alone = skipped, alone
    return loader


def _checked_random(random: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """Returns what only training has, checked."""
    mix = random["mix"]
    check_mix(mix)
    keep = checked_numbers("keep", random["keep"], 2)
    random["keep"] = tuple(checked_fraction("keep", fraction) for fraction in keep)
    checked_choice("crop", random["crop"], get_args(Crop))
    random["hflip"] = checked_fraction("hflip", random["hflip"])
    for name in ("shuffle", "with_params", "switchable"):
        checked_bool(name, random[name])
    check_mix(mix, with_params=random["with_params"], switchable=random["switchable"])
    if mix is not None:
        check_needs(mix, boxes=True)
    if mix is not None and batch_size < 2:
        raise ValueError(
            f"`batch_size` must be at least 2 for mixing, got {batch_size}: an image is mixed with "
            "another one of its batch. Pass `mix=None` to train without."
        )
    return random


def _refuse_random(random: dict[str, Any]) -> None:
    defaults = detection_loader.__kwdefaults__ or {}
    for name, value in random.items():
        if value != defaults[name]:
            raise ValueError(
                f"`{name}` must be left out with `training=False`, got {value!r}: nothing is "
                "random in validation."
            )


def _found(
    images: Any, annotations: Any, classes: Any, on_error: str
) -> tuple[Source, tuple[str, ...]]:
    """Returns the source, and what of it was left out."""
    if isinstance(images, Source):
        if images.annotations is None:
            raise ValueError(
                "`images` must be what find_source(…, annotations=…) returned, got one without "
                "annotations."
            )
        if annotations is not None or classes is not None:
            name = "classes" if annotations is None else "annotations"
            raise ValueError(f"`{name}` must be given to find_source, which made the source.")
        source = images
    elif annotations is None:
        raise TypeError("`annotations` must be given with a folder of images, got None.")
    elif on_error == "skip":
        source = unchecked_source(images, annotations=annotations, classes=classes)
    else:
        source = find_source(images, annotations=annotations, classes=classes)
    if on_error == "skip":
        return without_damaged(source)
    look_at_a_few(source)
    return source, ()


def _without_objects(outputs: list[torch.Tensor], index: int) -> list[torch.Tensor]:
    """Returns outputs in which an image that comes once more has no boxes and no id."""
    values = {"boxes": -1, "labels": -1, "counts": 0, "image_id": -1}
    images, *targets = outputs
    for number, value in enumerate(values.values()):
        targets[number] = targets[number].clone()  # not in DALI's memory
        targets[number][index] = value
    return [images, *targets]


def _collate(
    targets: Targets, more: Literal["params", "size", ""]
) -> Callable[[list[torch.Tensor]], Any]:
    """Returns what makes targets of the outputs of a pipeline after the images."""
    names = ["boxes", "labels", "counts", "image_id"]
    names += {"params": ["lam", "cut", "partner_id"], "size": ["original_size"], "": []}[more]

    def in_one(outputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip(names, outputs, strict=True))

    def by_image(outputs: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        batch = in_one(outputs)
        counts = batch.pop("counts").tolist()  # on the CPU: nothing is waited for
        found = [
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        for target, count in zip(found, counts, strict=True):
            for name in ("boxes", "labels"):
                target[name] = target[name][:count]
        return found

    return in_one if targets == "padded" else by_image
