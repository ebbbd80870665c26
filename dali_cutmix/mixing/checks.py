"""Checks of what is given to mix(): when the graph is built, and of the data inside the graph.

The types and shapes of images and labels are known only when the pipeline runs. Each check of them
is a few cheap native operators that fail on wrong data, in a function that states the rule.
"""

from __future__ import annotations

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states
from dali_cutmix._validation import checked_choice, checked_size
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.followers import volumes
from dali_cutmix.mixing.plan import MixParams, Size

__all__ = [
    "DTYPES",
    "IMAGES",
    "IMAGES_OF_SIZE",
    "NO_SALIENCY",
    "VOLUMES",
    "averages",
    "check_arguments",
    "check_classes",
    "check_groups",
    "check_node",
    "check_objects",
    "check_params",
    "check_params_of_volumes",
    "check_patterns",
    "check_saliency",
    "checked_kind",
    "class_row",
    "group_words",
    "images_of_one_size",
    "images_of_size",
    "in_batch",
    "in_corner",
    "in_image",
    "more_than_one_channel",
    "of_one_size",
    "same_shape",
    "size_of_plan",
    "switch",
    "unless_failed",
    "volumes_of_size",
]

_MOST_CHANNELS = volumes.MOST_CHANNELS
DTYPES = {
    "uint8": types.UINT8,
    "int16": types.INT16,
    "int32": types.INT32,
    "float32": types.FLOAT,
}

IMAGES = (
    "`images` must be uint8, HWC and of one size: resize before mixing, normalise (or say "
    '`dtype="float32"`) and transpose after it.'
)
IMAGES_OF_SIZE = (
    "`images` must be uint8 (or of `dtype`), HWC and of the `size` that was given: resize to it "
    "before mixing."
)
VOLUMES = (
    "`images` must be volumes of `dtype` and of the `size` and `layout` that were given, with at "
    "most 16 channels: crop or pad them to it before mixing."
)
NO_SALIENCY = (
    "`saliency` must be given where `methods` has SnapMix, got None: a map of each image, (h, w), "
    "where its class is seen. For images without maps use ResizeMix or CutMix."
)
PARAMS = "`params` must hold a partner in the batch and a box inside the image."


@states(IMAGES)
def images_of_one_size(images: DataNode, dtype: str) -> tuple[DataNode, DataNode]:
    """Returns `images` as they are, and their shapes, int32 (3,), on the CPU.

    Fails unless they are (H, W, C) with C at most 16, in as many bytes as `dtype` takes.
    More channels are taken for CHW images whose layout was not said. That all have one size is
    seen when they are pasted.
    """
    shape = fn.reshape(images.shape(dtype=types.INT32), shape=[3])  # of three axes
    zeros = types.Constant(np.zeros(_MOST_CHANNELS + 1, np.int32))
    shape = shape + fn.slice(zeros, start=shape[2], shape=[1], axes=[0])
    return fn.reinterpret(images, dtype=DTYPES[dtype], shape=shape), shape


@states(IMAGES_OF_SIZE)
def images_of_size(images: DataNode, dtype: str, shape: list[int]) -> tuple[DataNode, DataNode]:
    """Returns `images` as they are, and -1, int32 (1, 1, 1), for the check of the labels.

    That fails unless they are of a shape, ``[H, W, -1]``, with at most 16 channels; the images
    unless they are of `dtype`, as far as bytes tell. Every operator on the CPU costs.
    """
    return _of_shape(images, dtype, shape)


@states(VOLUMES)
def volumes_of_size(images: DataNode, dtype: str, shape: list[int]) -> tuple[DataNode, DataNode]:
    """As `images_of_size`, of the shape of volumes; -1 has as many axes as they."""
    return _of_shape(images, dtype, shape)


def _of_shape(images: DataNode, dtype: str, shape: list[int]) -> tuple[DataNode, DataNode]:
    found = images.shape(dtype=types.INT32)
    seen = fn.reinterpret(images, dtype=DTYPES[dtype], shape=found)
    beyond = found - types.Constant(np.array([max(length, 0) for length in shape], np.int32))
    choice = [_MOST_CHANNELS + 1 if length == -1 else 1 for length in shape]
    one = [1] * len(shape)
    ones = types.Constant(np.full(choice, -1, np.int32))
    return seen, fn.slice(ones, start=beyond, shape=one, axes=list(range(len(one))))


def unless_failed(images: DataNode, shape: list[int], ones: DataNode) -> DataNode:
    """Returns the images as they are; fails where what `images_of_size` gives does."""
    one_more = types.Constant(np.array(shape, np.int32) + 1)
    return fn.reshape(images, shape=fn.reshape(ones, shape=[1]) + one_more)


@states('`labels` must be float32 rows of `num_classes` with `labels="float"`.')
def class_row(labels: DataNode, num_classes: int, ones: DataNode | int = -1) -> DataNode:
    """Returns float labels as they are; fails unless each has num_classes numbers.

    Args:
        ones: -1, or what `images_of_size` gives.
    """
    if isinstance(ones, int):
        return fn.reshape(labels, shape=[num_classes])
    return fn.reshape(labels, shape=fn.reshape(ones + (num_classes + 1), shape=[1]))


@states("`partners` must have images of the shape of `images`.")
def same_shape(others: DataNode, other_shape: DataNode, shape: DataNode) -> DataNode:
    """Returns the other images as they are; fails unless their shapes are those given."""
    difference = fn.reductions.sum(dmath.abs(shape - other_shape))
    return fn.reinterpret(others, shape=shape + zero_unless(difference))


@states(
    "`params` of a mix that blends must not be given to mix() with images of one channel: a class "
    "mask would get classes that neither image has."
)
def more_than_one_channel(images: DataNode) -> DataNode:
    """Returns the images as they are; fails where they have one channel."""
    shape = images.shape(dtype=types.INT32)
    return fn.reinterpret(images, shape=shape + zero_unless(shape[2] == 1))


@states(PARAMS)
def in_image(box: DataNode, size: DataNode, *, axes: int = 2) -> DataNode:
    """Returns given boxes, int32 (1, 4), as they are; fails unless they are inside the image."""
    room = fn.cat(box, size - box[:, :axes] - box[:, axes:], axis=1)
    return box + zero_unless(fn.reductions.min(room) < 0)


@states("`params` must hold a box that reaches to the bottom right corner where four images meet.")
def in_corner(box: DataNode, tiled: DataNode, size: DataNode) -> DataNode:
    """Returns given boxes, int32 (1, 4), as they are; fails where they are no last region."""
    room = (size - box[:, :2] - box[:, 2:]) * tiled
    return box + zero_unless(fn.reductions.max(room))


@states("`params` with `patterns` must be repeated on images of the size that they were drawn for.")
def of_one_size(box: DataNode, drawn_for: DataNode, size: DataNode) -> DataNode:
    """Returns boxes, int32 (1, 4), as they are; fails unless both sizes are one."""
    return box + zero_unless(fn.reductions.max(dmath.abs(drawn_for - size)))


@states(PARAMS)
def in_batch(index: DataNode) -> DataNode:
    """Returns indices, int32 (), as they are; fails unless they are of samples of the batch."""
    return index + fn.permute_batch(index * 0, indices=index)


@states("`enabled` must be a bool, or a number, for each sample.")
def switch(enabled: DataNode) -> DataNode:
    """Returns a scalar as bool (); fails for anything that is no scalar."""
    return fn.reshape(enabled, shape=[]) != 0


@states("`groups` must be int32 or int64 scalars, one for each sample.")
def group_words(groups: DataNode) -> DataNode:
    """Returns integers of 64 bits as their words, int32 (2,); fails for what is no scalar."""
    # A bitwise operator takes no floats.
    whole = fn.cast(fn.reshape(groups & -1, shape=[1]), dtype=types.INT64)
    return fn.reinterpret(whole, dtype=types.INT32, shape=[2])


# What is known when the graph is built


def check_arguments(
    images: DataNode,
    labels: DataNode | None,
    cfg: MixConfig,
    partners: tuple[DataNode, DataNode | None] | None,
    enabled: DataNode | None,
) -> None:
    """Raises TypeError or ValueError for arguments of `mix` that cannot be used."""
    if not isinstance(cfg, MixConfig):
        raise TypeError(f"`cfg` must be a MixConfig, got {cfg!r}.")
    nodes = [("images", images)]
    if labels is not None:
        nodes.append(("labels", labels))
    if partners is not None:
        if not isinstance(partners, tuple) or len(partners) != 2:
            raise TypeError(f"`partners` must be (images, labels), got {partners!r}.")
        if (partners[1] is None) != (labels is None):
            raise ValueError(
                "`partners` must be (images, labels) where there are labels, else (images, None)."
            )
        nodes += [("partners", node) for node in partners if node is not None]
        cfg.check_second_batch()
    for name, node in nodes:
        check_node(name, node)
    if enabled is not None and not isinstance(enabled, DataNode):
        raise TypeError(f"`enabled` must be a DataNode of a pipeline, got {enabled!r}.")
    if enabled is not None and enabled.device != "cpu":
        raise ValueError('`enabled` must be on the CPU, got device "gpu".')
    if labels is not None and any(node.device != "cpu" for name, node in nodes[1::2]):
        raise ValueError(
            '`labels` must be on the CPU, got device "gpu": pass them as the reader gives them.'
        )
    if partners is not None and partners[0].device != images.device:
        raise ValueError(
            f"`partners` must be on the device of `images`, got {partners[0].device} "
            f"and {images.device}."
        )
    if cfg.num_classes is None and labels is not None:
        raise ValueError(
            "`num_classes` must be given in MixConfig to mix labels in a pipeline, got None: or "
            "pass None for the labels."
        )
    if Pipeline.current() is None:
        raise RuntimeError("mix() must be called inside a @pipeline_def function.")


def check_objects(objects: DataNode | None, cfg: MixConfig, params: MixParams | None) -> None:
    """Raises TypeError or ValueError for `objects` that are not needed, or not there."""
    of_masks = cfg.object_method is not None
    if objects is None:
        if of_masks:
            raise ValueError(
                "`objects` must be given where `methods` has ObjectCutMix, got None: the masks of "
                "the images that give, on the CPU. For images without masks use CutMix."
            )
        if cfg.avoids:
            raise ValueError(
                "`objects` must be given where `methods` has DetectionCutMix, got None: the boxes "
                "of each image, as mix_boxes() takes them. For images without boxes use CutMix."
            )
        return
    if not (cfg.avoids or of_masks) or params is not None:
        raise ValueError(
            "`objects` must be left out unless `methods` has DetectionCutMix or ObjectCutMix, and "
            "with `params`: nothing is chosen by them."
        )
    check_node("objects", objects)
    if objects.device != "cpu":
        raise ValueError(
            '`objects` must be on the CPU, got device "gpu": pass them as the reader gives them.'
        )


def check_saliency(saliency: DataNode | None, cfg: MixConfig, params: MixParams | None) -> None:
    """Raises TypeError or ValueError for `saliency` that is not needed, or not there."""
    if saliency is None:
        if cfg.needs_maps and params is None:
            raise ValueError(NO_SALIENCY)
        return
    if not cfg.by_saliency or params is not None:
        raise ValueError(
            "`saliency` must be left out unless `methods` has SaliencyMix, AttentiveMix or "
            "SnapMix, and with `params`: nothing is chosen by it."
        )
    check_node("saliency", saliency)
    if saliency.device != "cpu":
        raise ValueError(
            '`saliency` must be on the CPU, got device "gpu": pass it as the reader gives it.'
        )


def check_groups(
    groups: DataNode | None,
    cfg: MixConfig,
    has_labels: bool,
    params: MixParams | None,
) -> None:
    """Raises TypeError or ValueError for `groups` that are not needed, or not there."""
    if params is None:
        check_classes(cfg, has_labels and cfg.labels == "int", groups is not None)
    if groups is None:
        return
    if not cfg.grouped or params is not None:
        raise ValueError(
            '`groups` must be left out unless `partner` is "same" or "other", and with `params`: '
            "no partner is chosen by them."
        )
    check_node("groups", groups)
    if groups.device != "cpu":
        raise ValueError(
            '`groups` must be on the CPU, got device "gpu": pass them as the reader gives them.'
        )


def check_classes(cfg: MixConfig, has_classes: bool, has_groups: bool) -> None:
    """Raises ValueError where something goes by a class that samples do not have."""
    if cfg.grouped and not (has_classes or has_groups):
        raise ValueError(
            f'`partner` must not be "{cfg.partner}" where samples have no class, an integer label, '
            "got none: give mix() `groups`, a number for each sample."
        )
    if cfg.prob_of_class is not None and not has_classes:
        raise ValueError(
            "`prob` must be one number where samples have no class, an integer label, got one for "
            "each class."
        )


def check_node(name: str, node: object) -> None:
    """Raises TypeError for what is no DataNode."""
    if not isinstance(node, DataNode):
        raise TypeError(f"`{name}` must be a DataNode of a pipeline, got {type(node).__name__}.")


def checked_kind(
    cfg: MixConfig, size: tuple[int, ...] | None, layout: str, dtype: str
) -> tuple[int, ...] | None:
    """Returns the size; ValueError where images, or volumes, of the kind cannot be mixed."""
    checked_choice("layout", layout, ("HWC", *volumes.LAYOUTS))
    if layout == "HWC":
        checked_choice("dtype", dtype, ("uint8", "float32"))
        return None if size is None else checked_size(size)
    checked_choice("dtype", dtype, ("uint8", "int16", "float32"))
    if size is None:
        raise ValueError(f'`size` must be (depth, height, width) with `layout="{layout}"`.')
    for method, _ in cfg.weighted_methods:
        others = (method.resizes, method.tiles, method.avoids, method.shows, method.sees)
        if any(others):
            raise ValueError(
                "`methods` must be CutMix, ObjectCutMix or MixUp for volumes, got "
                f"{type(method).__name__}."
            )
        if method.blends and dtype == "int16":
            raise ValueError(
                '`dtype` must be "uint8" or "float32" to blend volumes (MixUp), got "int16": cast '
                "them to float32 before mixing."
            )
    return checked_size(size, axes=3)


def check_params(
    params: MixParams,
    cfg: MixConfig,
    partners: tuple[DataNode, DataNode | None] | None,
    enabled: DataNode | None,
    seed: int | None,
    keep_order: bool,
) -> None:
    """Raises TypeError or ValueError for `params` that cannot be used, or not with the others."""
    if not isinstance(params, MixParams) or params.box is None:
        raise TypeError(f"`params` must be MixParams with a box, got {params!r}.")
    if enabled is not None or seed is not None or not keep_order:
        raise ValueError(
            "`enabled`, `seed` and `keep_order` must be left out with `params`: nothing is drawn."
        )
    if (partners is None) == (params.partner is None) or (
        partners is not None and params.original is not None
    ):
        raise ValueError(
            "`params` must have a `partner` in the batch, or else `partners` must be given "
            "(and then no `partner` and no `original`)."
        )
    if (params.tiled is None) != (params.others is None) or (
        params.tiled is not None and partners is not None
    ):
        raise ValueError(
            "`params` must have `others` where it has `tiled`, and else neither; with `partners` "
            "none of the two."
        )
    if (params.source is None) != (params.lam_partner is None):
        raise ValueError("`params` must have both `source` and `lam_partner`, or neither.")
    if params.source is not None and cfg.targets == "pair":
        raise ValueError(
            '`targets` must be "soft" with `params` of SnapMix, got "pair": the weights of the two '
            "labels need not sum to 1."
        )
    if params.tiled is not None and cfg.targets == "pair":
        raise ValueError(
            '`targets` must be "soft" with `params` of Mosaic, got "pair": four images have a '
            "label."
        )


def averages(params: MixParams) -> bool:
    """Returns whether pixels may be averages of two images."""
    shown = {pattern.method.shows for pattern in params.patterns if not pattern.heavier}
    return params.blended is not None or "weights" in shown


def check_patterns(params: MixParams, size: Size) -> None:
    """Raises TypeError or ValueError for `patterns` that cannot be repeated."""
    if not params.patterns:
        return
    if params.size is None:
        raise TypeError(
            "`params` with `patterns` must be the params that mix() returned: a pattern is no plan "
            "by itself."
        )
    if None not in (params.size.known, size.known) and params.size.known != size.known:
        raise ValueError(
            "`params` with `patterns` must be repeated on images of the size that they were drawn "
            f"for, {params.size.known}, got {size.known}."
        )


def check_params_of_volumes(params: MixParams, dtype: str) -> None:
    """Raises ValueError for `params` that volumes cannot follow."""
    of = {
        "ResizeMix": params.resized,
        "Mosaic": params.tiled,
        "DetectionCutMix": params.avoids,
        "SnapMix": params.source,
    }
    for method, flag in of.items():
        if flag is not None:
            raise ValueError(
                f"`params` must be of CutMix or MixUp for volumes, got those of {method}."
            )
    for pattern in params.patterns:
        raise ValueError(
            "`params` must be of CutMix or MixUp for volumes, got those of "
            f"{type(pattern.method).__name__}."
        )
    if params.blended is not None and dtype == "int16":
        raise ValueError(
            '`dtype` must be "uint8" or "float32" where `params` may blend volumes (MixUp), got '
            '"int16": cast them to float32 before mixing.'
        )


def size_of_plan(params: MixParams, partners: object) -> Size:
    """Returns the size of what a plan is for; raises where a follower cannot follow it."""
    if not isinstance(params, MixParams) or params.size is None:
        raise TypeError(
            f"`params` must be the params that mix() returned, got {params!r}: those made by hand "
            "go through mix(…, params=…)."
        )
    if (partners is None) == (params.partner is None):
        raise ValueError(
            "`partners` must be given where mix() was given `partners`, and else left out."
        )
    return params.size
