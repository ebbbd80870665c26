"""train_loader and val_loader: the ImageNet pipelines as iterables of torch tensors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from dali_cutmix import recipes
from dali_cutmix._validation import checked_bool, checked_choice, checked_int
from dali_cutmix.augment.policies import Policy, RandomErasing
from dali_cutmix.data.pixel_format import RGB8, PixelFormat, ReadAs, checked_format
from dali_cutmix.data.sources import Samples, Source, find_source, tail_heavy
from dali_cutmix.loaders._arguments import (
    Device,
    OnError,
    check_mix,
    check_needs,
    checked_options,
    given,
    look_at_a_few,
    pair,
    progress_bar,
    without_damaged,
)
from dali_cutmix.loaders.loader import Loader
from dali_cutmix.mixing.config import MAX_CLASSES, MixConfig
from dali_cutmix.pipelines import imagenet
from dali_cutmix.recipes import Recipe

if TYPE_CHECKING:
    pass

__all__ = ["train_loader", "val_loader"]

Paths = str | os.PathLike[str]
FromRecipe = Literal["recipe"]


def train_loader(
    source: Paths | Sequence[Paths] | Samples | Source,
    *,
    batch_size: int,
    recipe: str | Recipe | None = None,
    mix: MixConfig | FromRecipe | None = "recipe",
    augment: Policy | Sequence[Policy] | FromRecipe | None = "recipe",
    erase: RandomErasing | FromRecipe | None = "recipe",
    erase_after_mix: bool | None = None,
    partners: Literal["tail"] | Source | FromRecipe | None = "recipe",
    tail_alpha: float | None = None,
    repeats: int | None = None,
    size: int | tuple[int, int] | None = None,
    area: Sequence[float] | None = None,
    ratio: Sequence[float] | None = None,
    interpolation: Literal["bilinear", "bicubic", "random"] | None = None,
    hflip: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int = 3,
    read_as: ReadAs = "uint8",
    num_classes: int | None = None,
    targets: Any = None,
    saliency: Paths | None = None,
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
    """Returns a loader of training batches: decode, crop, flip, augment, mix, normalise.

    Yields ``(images, targets)`` on the device: images float32 or float16, (N, 3, H, W), or with
    `channels` in place of 3; targets float32 (N, K), or ``(label_a, label_b, lam)`` where `mix` has
    ``targets="pair"``, or int64 (N,) without `mix`. All batches are full; the last, incomplete one
    of an epoch is dropped. A folder or a list is shuffled anew every epoch, as a whole and the same
    on every shard; tars, TFRecords and RecordIO within a window that moves over them, see
    `data.readers`.

    Args:
        source: an ImageFolder, a list of images, (path, label) samples, or shards of WebDataset,
            TFRecord or RecordIO, told apart by what is there; or what `find_source` returned, which
            has more options.
        batch_size: samples per batch, of this shard.
        recipe: a published recipe, by name (``dali-cutmix recipes`` lists them), or one's own;
            None for the defaults of `Recipe`. Each of the next arguments that is given
            overrides it.
        mix: how to mix; None for no mixing.
        augment: policies applied after the flip; None for none.
        erase: random erasing; None for none.
        partners: what images are mixed with: None, others of their batch; ``"tail"``, those of a
            second reader of the same data, in which a class of n images comes as often as
            1 / n ** `tail_alpha` says for each of its images (CMO, "The Majority Can Help the
            Minority"): the patch is mostly of rare classes, on a background as it comes. Or a
            source of one's own, as `find_source` returned it (with its `weights`), of the same
            classes. Sample i is mixed with sample i of that reader, which has its own order, crops
            and flips, and goes on from epoch to epoch; ``mix.partner`` is then not used. It costs
            the decoding of as many images again.
        tail_alpha: with ``"tail"``: 1, all classes come alike; 0, as in the data. In an epoch of
            that reader every image comes a whole number of times; nothing is drawn.
        erase_after_mix, repeats, size, area, ratio, interpolation, hflip, mean, std: see `Recipe`.
        channels: of the images. 3: RGB, to which gray is converted; 1: gray, to which colours are
            converted; any other number up to 32: the bands of every file as they are, of TIFF, PNG,
            WebP … Then `mean` and `std` must be given, and an image of other bands is an error (a
            JPEG too: it is read by 1 or 3). Other than 3, they cannot be augmented by policies.
        read_as: ``"uint8"``: 8 bits a value; files of 16 bits lose the lower 8. ``"float32"``, for
            files of 16 bits and floats: nothing is lost. The range of an integer type becomes
            [0, 1], floats arrive as they are; `mean` and `std` are then in their units. It takes
            four times the memory, and policies cannot augment it.
        num_classes: number of classes. That of a folder or a list is known; of others it must be
            given to mix, here or in `mix`.
        targets: more than one class per image (several labels, rows, regression), see
            `find_source`; the targets are then float32 (N, K), with `mix` and without.
        saliency: a file with a map of each image, for methods of `mix` that look at them
            (`SnapMix`, `SaliencyMix`, `AttentiveMix`), as `dali-cutmix saliency` makes it, see
            `find_source`. The maps are cropped and flipped with their images; what policies in
            `augment` move, they do not follow.
        shuffle: whether every epoch has an order of its own; ``False`` reads in the order of the
            source (`find_source` takes one as `subset`), and each shard always its own part.
        on_error: what to do about damaged samples. ``"raise"``: the first batch that DALI cannot
            decode is an error that names them. ``"skip"``: before the first batch all samples are
            decoded strictly, as `dali-cutmix check` does, and those with a problem are left out,
            with a warning; ``loader.skipped`` names them. What was found is remembered, so that
            the next start reads only what has changed. The same damage gives the same stream.
        device: ``"gpu"`` (or ``"cuda"``, ``"cuda:1"``, a torch.device) decodes with nvJPEG and does
            the rest on the GPU: torch's current one, where no other is named.
        seed: at least 0. The same seed gives the same stream.
        start_epoch: the epoch to begin with, as after `Loader.set_epoch`.
        shard_id, num_shards: this process's part; by default from torch.distributed, or
            torchrun's environment, or all. A loader that is made before
            torch.distributed.init_process_group, and read after it, is refused.
        num_threads: of DALI; by default the cores this process may use, at most 16.
        dtype, layout: of the images; with ``"NHWC"`` the tensors are (N, 3, H, W) in
            torch.channels_last, without a copy.
        antialias: whether the resize filters as Pillow does. Only tests turn it off.
        prefetch_queue_depth: batches prepared ahead.
        hw_decoder_load: fraction of the images for the GPU's JPEG hardware, where it has one. Its
            pixels may differ from those of nvJPEG's kernels, so it belongs to the loader's state.
            With ``device="cpu"`` it has no effect.
        with_params: for looking into a batch: after the targets, also yield what was mixed, on
            the CPU: lam float32 (N,), box int32 (N, 4), and the labels of the sample and its
            partner, int64 (N,); where `mix` has ``partner="same"`` or ``"other"`` also whether a
            partner was found, bool (N,).
        switchable: makes ``loader.mixing = False`` work, for schedules that end without mixing.

    Raises:
        FileNotFoundError: `source` does not exist or lacks images.
        TypeError, ValueError: an argument is wrong, `device` is not there, or the first batch
            shows a damaged file.

    >>> with train_loader(photo_folder, batch_size=16, recipe="rsb-a3", size=32,
    ...                   device="cpu") as loader:
    ...     for images, targets in loader:
    ...         pass
    >>> images.shape, targets.shape
    (torch.Size([16, 3, 32, 32]), torch.Size([16, 5]))
    """
    values = given(
        erase_after_mix=erase_after_mix,
        tail_alpha=tail_alpha,
        repeats=repeats,
        size=size,
        area=area,
        ratio=ratio,
        interpolation=interpolation,
        hflip=hflip,
    )
    # None means none of it here.
    or_none = {"mix": mix, "erase": erase, "augment": () if augment is None else augment}
    for name, value in or_none.items():
        if not (isinstance(value, str) and value == "recipe"):
            values[name] = value
    of_recipe = isinstance(partners, str) and partners == "recipe"
    if isinstance(partners, Source) or (of_recipe and mix is None):
        values["partners"] = None
    elif not of_recipe:
        values["partners"] = partners
    flags = {"with_params": with_params, "switchable": switchable, "shuffle": shuffle}
    for name, flag in flags.items():
        checked_bool(name, flag)
    to = checked_format(channels, read_as)
    used, statistics = _with_statistics(_recipe(recipe, values), mean, std, to)
    if used.augment and to != RGB8:
        raise ValueError(
            f"`augment` must be None with `{to.words}`, got {used.augment!r}: the policies are "
            "made for 8-bit RGB."
        )
    if used.mix is not None:
        source = _with_maps(source, targets, saliency, used.mix)
        targets = None if saliency is not None else targets
    elif saliency is not None:
        raise ValueError("`saliency` must be left out where `mix` is None: nothing is mixed by it.")
    options = _checked(
        source=source,
        targets=targets,
        to=to,
        num_classes=num_classes,
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
    options |= _partners(partners, tail_alpha, used, options, on_error, to)
    about = _about(options, used)
    classes = about["classes"]
    alone = "partners" not in options
    if used.mix is not None and alone and options["batch_size"] < 2:
        raise ValueError(
            f"`batch_size` must be at least 2 for mixing, got {batch_size}: an image is mixed with "
            "another one of its batch. Pass `mix=None` to train without."
        )
    if (
        used.mix is not None
        and alone
        and 1 < used.repeats
        and options["batch_size"] < 2 * used.repeats
    ):
        raise ValueError(
            f"`batch_size` must be at least twice `repeats`, got {batch_size} and {used.repeats}: "
            "an image would be mixed with copies of itself alone."
        )
    if used.mix is not None:
        mixing = used.mix
        check_needs(mixing, classes=options["source"].targets is None, maps=True)
        if options["source"].targets is not None and mixing.labels == "int":
            if mixing.label_smoothing and isinstance(mix, str):
                raise ValueError(
                    f"`mix` must be given with `targets`: recipe {used.name!r} smooths the labels "
                    f"of one class, by {mixing.label_smoothing}."
                )
            mixing = dataclasses.replace(mixing, labels="float")
        options["mix"] = _with_classes(mixing, num_classes, options, classes)
        options["num_classes"] = options["mix"].num_classes
    else:
        check_mix(None, with_params=with_params, switchable=switchable)
    loader = Loader(
        imagenet.train,
        shuffle=shuffle,
        channels_last=layout == "NHWC",
        switchable=switchable,
        reader_name="reader" if "partners" in options else None,
        start_epoch=start_epoch,
        augment=used.augment,
        erase=used.erase,
        erase_after_mix=used.erase_after_mix,
        repeats=used.repeats,
        size=pair(used.size),
        area=used.area,
        ratio=used.ratio,
        interpolation=used.interpolation,
        hflip=used.hflip,
        **statistics,
        with_params=with_params,
        **options,
    )
    return _told(loader, about, options)


def val_loader(
    source: Paths | Sequence[Paths] | Samples | Source,
    *,
    like: Loader | None = None,
    batch_size: int | None = None,
    recipe: str | Recipe | None = None,
    size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
    read_as: ReadAs | None = None,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    targets: Any = None,
    on_error: OnError = "raise",
    even: bool = True,
    device: Device | None = None,
    shard_id: int | None = None,
    num_shards: int | None = None,
    num_threads: int | None = None,
    dtype: Literal["float32", "float16"] | None = None,
    layout: Literal["NCHW", "NHWC"] | None = None,
    antialias: bool | None = None,
    prefetch_queue_depth: int | None = None,
    hw_decoder_load: float | None = None,
) -> Loader:
    """Returns a loader of validation batches: decode, resize, centre crop, normalise. Never mixes.

    Yields ``(images, labels)``: images as `train_loader` does, labels int64 (N,). Every image
    comes once an epoch, in the order of the source; the last batch may be smaller.

    Args:
        like: the training loader that this one validates: where nothing else is given, the recipe,
            size, mean, std, channels, batch size, classes, device, shards, threads, dtype and
            layout are its.
            The crop is as large as the training images, unless the recipe, at its own size,
            validates at another.
        batch_size: samples per batch, of this shard; must be given without `like`.
        recipe: whose validation it is, see `train_loader`.
        size: side, or (H, W), of the centre crop; by default the recipe's `val_size`.
        resize: length of the shorter side before the crop, at least `size`; by default the
            recipe's `val_resize`, in proportion where `size` is given.
        interpolation, mean, std: by default the recipe's.
        channels, read_as: see `train_loader`; by default 3 and ``"uint8"``.
        classes: the classes of training (``train.classes``), of which the source may have some:
            folders are numbered by name, see `find_source`. One with another name is refused.
        targets: see `train_loader`; the labels are then float32 (N, K), the columns those of
            `classes`. Of several shards ``even=False`` is needed: a row cannot be marked.
        even: of several shards, one may have an image less than another. Then its last one comes
            twice, once with label -100, which torch's cross_entropy ignores, so that every shard
            has the same batches, and a collective in each does not hang: ``(labels >= 0).sum()``
            counts each image once. With ``False`` none comes twice. (In batches of one image it is
            a batch by itself, of which cross_entropy's mean is nan.)

    The other arguments and the errors are those of `train_loader`.

    >>> with val_loader(photo_folder, batch_size=16, size=32, resize=36, device="cpu") as loader:
    ...     print(sum(len(labels) for images, labels in loader))
    80
    """
    base = recipes.get(recipe) if recipe is not None else Recipe()
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "num_classes": num_classes,
        "channels": channels,
        "read_as": read_as,
        "device": device,
        "shard_id": shard_id,
        "num_shards": num_shards,
        "num_threads": num_threads,
        "dtype": dtype,
        "layout": layout,
        "antialias": antialias,
        "prefetch_queue_depth": prefetch_queue_depth,
        "hw_decoder_load": hw_decoder_load,
    }
    alone = False
    if like is not None:
        if not isinstance(like, Loader) or like.recipe is None:
            raise TypeError(f"`like` must be what train_loader returned, got {like!r}.")
        if recipe is None:
            base = like.recipe
        if classes is None:
            classes = like.classes
        if device is None and like._options["device_id"] is not None:
            options["device"] = f"cuda:{like._options['device_id']}"
        own_part = shard_id is not None or num_shards is not None  # both, or neither is like's
        for name in options.keys() - {"num_classes"}:
            if options[name] is None and not (own_part and name in ("shard_id", "num_shards")):
                options[name] = like._options.get(name)
        alone = like._alone and not own_part
        if num_classes is None:
            options["num_classes"] = like.num_classes
    elif batch_size is None:
        raise TypeError("`batch_size` must be given without `like`, got None.")
    defaults = {
        "channels": 3,
        "read_as": "uint8",
        "device": "gpu",
        "dtype": "float32",
        "layout": "NCHW",
        "antialias": True,
        "prefetch_queue_depth": 2,
        "hw_decoder_load": 0.65,
    }
    options |= {name: value for name, value in defaults.items() if options[name] is None}
    # Checked by the names that the arguments have here.
    _recipe(None, given(size=size))
    if resize is not None:
        checked_int("resize", resize, 1)
    if interpolation is not None:
        checked_choice("interpolation", interpolation, ("bilinear", "bicubic"))
    to = checked_format(options.pop("channels"), options.pop("read_as"))
    base, statistics = _with_statistics(base, mean, std, to, like)
    if size is not None and resize is None:
        resize = round(base.val_resize / max(pair(base.val_size)) * max(pair(size)))
    values = given(val_size=size, val_resize=resize, val_interpolation=interpolation)
    used = _recipe(base, values)
    if used.val_resize < max(pair(used.val_size)):
        raise ValueError(
            f"`resize` must be at least `size`, got resize={used.val_resize} "
            f"and size={used.val_size}."
        )
    source = _found(source, classes, targets)
    _check_classes(classes, source.classes)
    options = _checked(source=source, targets=None, to=to, on_error=on_error, **options)
    if even and source.targets is not None and options["num_shards"] > 1:
        raise ValueError(
            "`even` must be False with targets beyond one class and several shards, got True: an "
            "image that comes twice cannot be marked by its label."
        )
    options["_alone"] |= alone
    about = _about(options, used)
    loader = Loader(
        imagenet.val,
        last_batch="partial",
        even=even,
        channels_last=options["layout"] == "NHWC",
        size=pair(used.val_size),
        resize=used.val_resize,
        interpolation=used.val_interpolation,
        **statistics,
        **options,
    )
    return _told(loader, about, options)


def _partners(
    partners: Any,
    tail_alpha: Any,
    used: Recipe,
    options: dict[str, Any],
    on_error: str,
    to: PixelFormat,
) -> dict[str, Any]:
    """Returns the source of partners, where there is one, as an option of the pipeline."""
    if tail_alpha is not None and used.partners is None:
        raise ValueError(
            f'`tail_alpha` must be left out without `partners="tail"`, got {tail_alpha}.'
        )
    if used.partners is None and not isinstance(partners, Source):
        return {}
    source: Source = options["source"]
    if used.mix is None:
        raise ValueError(f"`partners` must be None where `mix` is None, got {partners!r}.")
    try:
        used.mix.check_second_batch()
    except ValueError as error:
        raise ValueError(f"`mix` must be one for `partners`: {error}") from error
    if source.targets is not None:
        raise ValueError(
            f"`partners` must be None with `targets`, got {partners!r}: partners have one class."
        )
    if not isinstance(partners, Source):
        return {"partners": tail_heavy(source, used.tail_alpha)}
    if partners.targets is not None or partners.masks is not None or partners.annotations:
        raise ValueError("`partners` must be a source of images with one class each.")
    if None not in (source.classes, partners.classes) and source.classes != partners.classes:
        raise ValueError(
            "`partners` must have the classes of `source`: find it with find_source(…, classes=…)."
        )
    if on_error == "skip":
        partners, skipped = without_damaged(partners, options["num_classes"], to)
        return {"partners": partners, "skipped": (*options["skipped"], *skipped)}
    look_at_a_few(partners, to)
    return {"partners": partners}


def _about(options: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Takes from the options what only the loader has to know."""
    names = ("classes", "skipped", "_alone")
    return {"recipe": recipe, **{name: options.pop(name) for name in names}}


def _told(loader: Loader, about: dict[str, Any], options: dict[str, Any]) -> Loader:
    """Returns the loader, told what it cannot find out by itself."""
    for name, value in {**about, "num_classes": options["num_classes"]}.items():
        setattr(loader, name, value)
    return loader


def _recipe(recipe: str | Recipe | None, given: dict[str, Any]) -> Recipe:
    """Returns the recipe with what was given in its place; validation follows the size."""
    base = Recipe() if recipe is None else recipes.get(recipe)
    used = dataclasses.replace(base, **given)
    if "size" in given and "val_size" not in given:
        resize = round(base.val_resize / max(pair(base.val_size)) * max(pair(used.size)))
        used = dataclasses.replace(used, val_size=used.size, val_resize=resize)
    if given.get("interpolation") in ("bilinear", "bicubic"):
        used = dataclasses.replace(used, val_interpolation=used.interpolation)
    return used


def _with_statistics(
    recipe: Recipe,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    to: PixelFormat,
    like: Loader | None = None,
) -> tuple[Recipe, dict[str, Any]]:
    """Returns the recipe with what was given in its place, and mean and std of the channels.

    Recipes are of 8-bit RGB: of other images a recipe keeps its own.

    Args:
        like: whose statistics are taken where they are of such images, and nothing is given.
    """
    if to == RGB8:
        recipe = dataclasses.replace(recipe, **given(mean=mean, std=std))
        return recipe, {"mean": recipe.mean, "std": recipe.std}
    defaults: dict[str, Any] = {}
    if like is not None and to == PixelFormat(
        like._options.get("channels", 3), like._options.get("read_as", "uint8")
    ):
        defaults = like._options
    elif to.channels == 3:
        defaults = {"mean": recipe.mean, "std": recipe.std}
    mean = defaults.get("mean") if mean is None else mean
    std = defaults.get("std") if std is None else std
    if mean is None or std is None:
        raise ValueError(
            f"`mean` and `std` must be given with `{to.words}`, got mean={mean} and std={std}."
        )
    mean, std = to.checked_mean_and_std(mean, std)
    return recipe, {"mean": mean, "std": std}


def _with_classes(
    mix: MixConfig, given: int | None, options: dict[str, Any], classes: tuple[str, ...] | None
) -> MixConfig:
    num_classes, rows = options["num_classes"], options["source"].targets is not None
    if mix.labels != ("float" if rows else "int"):
        raise ValueError('`labels` must be "int" for a loader without `targets`, got "float".')
    if rows and mix.num_classes not in (None, num_classes):
        raise ValueError(
            f"`num_classes` must be the {num_classes} columns of the targets, got "
            f"{mix.num_classes} in `mix`."
        )
    if num_classes is None and mix.num_classes is None:
        raise ValueError(
            "`num_classes` must be given to mix data that do not tell it (WebDataset, TFRecord, "
            "RecordIO), got None."
        )
    if mix.num_classes is None:
        return dataclasses.replace(mix, num_classes=num_classes)
    if given is not None and given != mix.num_classes:
        raise ValueError(
            f"`num_classes` must be that of `mix`, got {given} and {mix.num_classes} there."
        )
    if num_classes is not None and mix.num_classes < num_classes:
        what = "class folders of `source`" if classes else "classes of `source`"
        raise ValueError(
            f"`num_classes` must be at least the {num_classes} {what}, got {mix.num_classes}."
        )
    return mix


def _check_classes(classes: Sequence[str] | None, found: tuple[str, ...] | None) -> None:
    if classes is None:
        return
    if not isinstance(classes, (list, tuple)) or not all(isinstance(c, str) for c in classes):
        raise TypeError(f"`classes` must be a list of class names, got {classes!r}.")
    if found is None or tuple(classes) == found:
        return  # only a folder has names to compare
    other = sorted(set(classes) ^ set(found))
    raise ValueError(
        f"`classes` must be the {len(found)} classes of `source`, got {len(classes)} that differ "
        f"in {', '.join(map(repr, other[:5])) or 'order'}: find it with find_source(…, classes=…)."
    )


def _checked(**options: Any) -> dict[str, Any]:
    """Returns the options that both pipelines take, checked and filled in."""
    targets, to = options.pop("targets"), options.pop("to")
    options = checked_options(**options)
    source = options["source"] = _found(options["source"], targets=targets)
    if source.masks is not None:
        raise ValueError("`source` has masks, which segmentation_loader reads.")
    options["classes"] = source.classes
    options["num_classes"] = _class_count(options["num_classes"], source)
    options["skipped"] = ()
    if options.pop("on_error") == "skip":
        options["source"], options["skipped"] = without_damaged(source, options["num_classes"], to)
    else:
        look_at_a_few(source, to)
    if to != RGB8:  # the default has no place in the state
        options |= to._asdict()
    return options


def _found(source: Any, classes: Sequence[str] | None = None, targets: Any = None) -> Source:
    """Returns the source, with its indexes, which are made where they are missing."""
    if isinstance(source, Source):
        if targets is not None:
            raise ValueError("`targets` must be given to find_source, which made the source.")
        return source
    with progress_bar("making the index") as report:
        return find_source(
            source, classes=classes, targets=targets, make_indexes=True, progress=report
        )


def _with_maps(source: Any, targets: Any, saliency: Any, mix: MixConfig) -> Any:
    """Returns the source with maps of its images, where they were given."""
    has_maps = isinstance(source, Source) and source.saliency is not None
    if saliency is not None and not mix.by_saliency:
        raise ValueError(
            "`saliency` must be left out unless `mix` has SaliencyMix, AttentiveMix or SnapMix."
        )
    if saliency is None:
        if mix.needs_maps and not has_maps:
            raise ValueError(
                "`saliency` must be given where `mix` has SnapMix, got None: a file of maps, as "
                "`dali-cutmix saliency` makes it."
            )
        return source
    if isinstance(source, Source):
        raise ValueError("`saliency` must be given to find_source, which made the source.")
    return find_source(source, targets=targets, saliency=saliency)


def _class_count(num_classes: int | None, source: Source) -> int | None:
    if num_classes is None:
        return source.num_classes
    num_classes = checked_int("num_classes", num_classes, 1, MAX_CLASSES)
    if source.targets is not None and num_classes != source.num_classes:
        raise ValueError(
            f"`num_classes` must be the {source.num_classes} columns of the targets, got "
            f"{num_classes}."
        )
    if source.num_classes is not None and num_classes < source.num_classes:
        raise ValueError(
            f"`num_classes` must be at least the {source.num_classes} classes of `source`, "
            f"got {num_classes}."
        )
    return num_classes
