"""volume_loader: the pipelines of volumes as iterables of torch tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from dali_cutmix._rules import warn
from dali_cutmix._validation import (
    checked_bool,
    checked_fraction,
    checked_int,
    checked_number,
    checked_numbers,
    checked_size,
)
from dali_cutmix.data.volumes import (
    VolumeLayout,
    Volumes,
    find_volumes,
    verify_volumes,
    without_faults,
)
from dali_cutmix.data.voxels import Scaling
from dali_cutmix.loaders._arguments import (
    Device,
    OnError,
    blending_methods,
    check_mix,
    check_needs,
    checked_options,
    progress_bar,
)
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.pipelines import volumes

__all__ = ["volume_loader"]

_MOST_CLASSES = 2**31 - 1


def volume_loader(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    *,
    batch_size: int,
    size: tuple[int, int, int] | None,
    training: bool = True,
    mix: MixConfig | None = None,
    num_classes: int | None = None,
    mask_names: tuple[str, str] | None = None,
    layout: VolumeLayout = "DHW",
    subset: Sequence[int] | None = None,
    foreground: float = 0.0,
    flip: Sequence[float] = (0.5, 0.5, 0.5),
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    window: tuple[float, float] | None = None,
    fill: float | None = None,
    even: bool = True,
    ignore_index: int = -100,
    shuffle: bool = True,
    on_error: OnError = "raise",
    device: Device = "gpu",
    seed: int = 0,
    start_epoch: int = 0,
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    prefetch_queue_depth: int = 2,
    switchable: bool = False,
) -> Loader:
    """Returns a loader of volumes and their masks, for segmentation in 3-D.

    Training: a random crop, flips, mixing, scaling; the last, incomplete batch of an epoch is
    dropped, and every epoch has its own order. Validation (``training=False``): the middle of each
    volume, or all of it, each once an epoch, in the order of the names, never mixed; the last
    batch may be smaller.

    Yields ``(volumes, masks)`` on the device: volumes float32 or float16, (N, C, D, H, W), and
    masks int64, (N, D, H, W), class indices as they are in the files.

    CutMix pastes a box of the partner, voxels and classes alike, of side int(S * sqrt(1 - lam)) in
    each axis ("Cut to the Mix", MICCAI 2024), see `mix`.

    Args:
        images, masks: folders of .npy files as np.save writes them, in C order, paired by name, at
            every depth. Volumes are uint8, int16 or float32, masks DHW of an integer type or bool,
            each all alike. ``dali-cutmix volumes`` makes them of NIfTI.
        batch_size: volumes per batch, of this shard.
        size: (D, H, W) of the crop, in voxels. None for whole volumes: validation with batches of
            one.
        training: see above.
        mix: how to mix: CutMix; None for no mixing. MixUp is refused, because classes cannot be
            averaged.
        num_classes: masks must hold class indices below it, which is checked of every crop; by
            default anything may be there, such as a value that a loss ignores.
        mask_names: where the names of volumes and masks differ: how both end, such as
            ``("_0000.npy", ".npy")``. `images` and `masks` may then be one folder.
        layout: of the files of volumes; channels, up to 16, come last or first.
        subset: indices of the volumes to use, in the order of their names: a fold of a
            cross-validation.
        foreground: probability that a training crop is put around a voxel of the foreground, drawn
            from all whose mask is above 0. nnU-Net has 0.33 (and draws the class first).
        flip: probabilities of mirroring along D, H and W in training. 0 for the axis on which left
            and right are different classes.
        mean, std: volumes become (voxel - mean) / std; numbers in the units of the files, for all
            channels or one for each.
        window: (low, high): they become (voxel - low) / (high - low), clipped to [0, 1]. In place
            of `mean` and `std`. Without either they are as in the files.
        fill: voxels around a volume that is smaller than the crop, in the units of the files; it
            then lies in the middle. By default what becomes 0 (`window`'s low, `mean`, or 0; the
            nearest whole number, for integers). Their class is 0.
        even: for validation on several shards, one of which may have a volume less: its last one
            comes twice, the first time with all of its mask `ignore_index`, so that every shard has
            the same batches and a collective in each does not hang.
        ignore_index: see `even`; by default what torch's cross_entropy ignores.
        shuffle: whether every epoch of training has an order of its own.
        on_error: what to do about damaged files. All headers are read at the start, and compared:
            with ``"raise"`` what does not fit is an error that names it. ``"skip"``: all volumes
            and masks are read to their end before the first batch, as `dali-cutmix check` does,
            and those with a problem are left out, with a warning; ``loader.skipped`` names them.
        device: ``"gpu"`` (or ``"cuda"``, ``"cuda:1"``, a torch.device): read and cropped on the
            CPU, and the rest on the GPU.
        seed: at least 0. The same seed gives the same stream.
        start_epoch, shard_id, num_shards, num_threads, dtype, prefetch_queue_depth, switchable: see
            `train_loader`.

    Raises:
        FileNotFoundError: a folder, or the mask of a volume, is missing.
        TypeError, ValueError: an argument is wrong, `device` is not there, or a file is not what
            can be read.

    >>> import numpy as np, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> for i in range(4):
    ...     volume = np.random.default_rng(i).normal(size=(20, 30, 25)).astype(np.float32)
    ...     np.save(f"{folder.name}/{i}_image.npy", volume)
    ...     np.save(f"{folder.name}/{i}_mask.npy", (volume > 1).astype(np.uint8))
    >>> ends = "_image.npy", "_mask.npy"
    >>> with volume_loader(folder.name, folder.name, mask_names=ends, batch_size=2,
    ...                    size=(16, 24, 24), mix=MixConfig(), device="cpu") as loader:
    ...     for volumes, masks in loader:
    ...         print(volumes.shape, masks.shape, bool(((volumes[:, 0] > 1) == masks).all()))
    torch.Size([2, 1, 16, 24, 24]) torch.Size([2, 16, 24, 24]) True
    torch.Size([2, 1, 16, 24, 24]) torch.Size([2, 16, 24, 24]) True
    """
    checked_bool("training", training)
    checked_bool("switchable", switchable)
    checked_bool("shuffle", shuffle)
    checked_bool("even", even)
    ignore_index = checked_int("ignore_index", ignore_index, -(2**31), 2**31 - 1)
    options = checked_options(
        on_error=on_error,
        batch_size=batch_size,
        device=device,
        seed=seed,
        shard_id=shard_id,
        num_shards=num_shards,
        num_threads=num_threads,
        dtype=dtype,
        prefetch_queue_depth=prefetch_queue_depth,
    )
    options["size"] = _checked_crop(size, training, options["batch_size"])
    _check_mixing(mix, training, options["batch_size"], switchable)
    if num_classes is not None:
        num_classes = checked_int("num_classes", num_classes, 1, _MOST_CLASSES)
    foreground = checked_fraction("foreground", foreground)
    flip = tuple(checked_fraction("flip", share) for share in checked_numbers("flip", flip, 3))
    skip = options.pop("on_error") == "skip"
    source = find_volumes(
        images,
        masks,
        mask_names=mask_names,
        layout=layout,
        subset=subset,
        skip=skip,
    )
    skipped: tuple[str, ...] = ()
    if skip:
        source, skipped = _without_damaged(source, num_classes)
    scaling = _scaling(mean, std, window, source.channels)
    options |= {
        "source": source,
        "num_classes": num_classes,
        "scaling": scaling,
        "fill": _fill(fill, scaling, source),
    }
    alone = options.pop("_alone")
    if training:
        loader = Loader(
            volumes.train,
            switchable=switchable,
            start_epoch=start_epoch,
            mix=mix,
            shuffle=shuffle,
            foreground=foreground,
            flip=flip,
            **options,
        )
    else:
        loader = Loader(
            volumes.val,
            last_batch="partial",
            even=even,
            ignore_index=ignore_index,
            start_epoch=start_epoch,
            **options,
        )
    loader.num_classes, loader.skipped, loader._alone = num_classes, skipped, alone
    return loader


def _checked_crop(size: Any, training: bool, batch_size: int) -> tuple[int, ...] | None:
    if size is not None:
        return checked_size(size, axes=3)
    if training:
        raise ValueError("`size` must be (depth, height, width) for training, got None.")
    if batch_size != 1:
        raise ValueError(
            f"`batch_size` must be 1 for whole volumes (`size=None`), got {batch_size}: they may "
            "be of several sizes."
        )
    return None


def _check_mixing(mix: Any, training: bool, batch_size: int, switchable: bool) -> None:
    check_mix(mix, switchable=switchable)
    if mix is None:
        return
    if not training:
        raise ValueError("`mix` must be None with `training=False`: validation never mixes.")
    check_needs(mix, masks=True)
    if batch_size < 2:
        raise ValueError(
            f"`batch_size` must be at least 2 for mixing, got {batch_size}: a volume is mixed with "
            "another one of its batch."
        )
    if blending := blending_methods(mix):
        raise ValueError(
            f"`mix` must paste and not blend, got {', '.join(blending)}: classes of masks cannot "
            "be averaged."
        )


def _scaling(mean: Any, std: Any, window: Any, channels: int) -> Scaling:
    if window is not None:
        if mean is not None or std is not None:
            raise ValueError(
                f"`window` must be left out with `mean` and `std`, got {window!r} beside {mean!r} "
                f"and {std!r}."
            )
        low, high = checked_numbers("window", window, 2)
        if not low < high:
            raise ValueError(f"`window` must be (low, high), low below high, got {window!r}.")
        return Scaling((low,), (high - low,), True)
    means = _for_channels("mean", 0.0 if mean is None else mean, channels)
    stds = _for_channels("std", 1.0 if std is None else std, channels)
    if min(stds) <= 0:
        raise ValueError(f"`std` must be above 0, got {std!r}.")
    return Scaling(means, stds)


def _for_channels(name: str, value: Any, channels: int) -> tuple[float, ...]:
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str):
        return checked_numbers(name, value, channels)
    return (checked_number(name, value),)


def _fill(fill: float | None, scaling: Scaling, source: Volumes) -> tuple[float, ...]:
    """Returns what is around volumes, for all channels or for each."""
    values = scaling.mean if fill is None else (checked_number("fill", fill),)
    if source.dtype == "float32":
        return values
    limits = np.iinfo(source.dtype)
    if fill is None:
        return tuple(float(np.clip(round(v), limits.min, limits.max)) for v in values)
    if values[0] != round(values[0]) or not limits.min <= values[0] <= limits.max:
        raise ValueError(f"`fill` must be a value of the volumes, {source.dtype}, got {fill!r}.")
    return values


def _without_damaged(source: Volumes, num_classes: int | None) -> tuple[Volumes, tuple[str, ...]]:
    """Returns the volumes that have no problem, and names the others."""
    with progress_bar("looking for damage") as report:
        faults = verify_volumes(source, num_classes=num_classes, progress=report)
    if not faults:
        return source, ()
    names = tuple(f"{fault.file} ({fault.problem})" for fault in faults)
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    warn(f"{len(names)} of {len(source.files)} volumes are left out: {listed}")
    return without_faults(source, faults), names
