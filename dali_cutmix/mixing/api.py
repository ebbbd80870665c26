"""mix: pair -> plan -> follow, as a graph of native DALI operators."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function, shard_of
from dali_cutmix._graph import class_index, gathered
from dali_cutmix._rules import states
from dali_cutmix._seeds import op_seed
from dali_cutmix._validation import checked_int
from dali_cutmix.mixing import boxes, checks
from dali_cutmix.mixing.config import MixConfig, MixOptions
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.followers import volumes
from dali_cutmix.mixing.followers.images import Images, mix_images
from dali_cutmix.mixing.followers.labels import mix_labels
from dali_cutmix.mixing.objects import object_boxes
from dali_cutmix.mixing.pairing import Group, Pairs, pair
from dali_cutmix.mixing.plan import (
    FLAGS,
    Beside,
    MixParams,
    Rows,
    Size,
    choose,
    completed,
    packed,
    plan_of,
    unpacked,
    with_source,
    with_unmixed,
)
from dali_cutmix.mixing.saliency import Saliency

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11; checkers bring their own

__all__ = ["Batch", "Mixed", "cutmix", "draw_plans", "mix", "mix_batch", "mixup"]


class Mixed(NamedTuple):
    """A mixed batch: ``images`` and ``targets`` on the images' device, ``params`` on the CPU."""

    images: DataNode
    # Or a tuple of three, or None; said so, every pipeline that returns it would be refused by type
    # checkers.
    targets: DataNode | Any
    params: MixParams


@graph_function
def mix(
    images: DataNode,
    labels: DataNode | None,
    cfg: MixConfig,
    *,
    size: tuple[int, int] | tuple[int, int, int] | None = None,
    layout: Literal["HWC", "DHW", "DHWC", "CDHW"] = "HWC",
    partners: tuple[DataNode, DataNode | None] | None = None,
    params: MixParams | None = None,
    enabled: DataNode | None = None,
    objects: DataNode | None = None,
    saliency: DataNode | None = None,
    groups: DataNode | None = None,
    seed: int | None = None,
    keep_order: bool = True,
    dtype: Literal["uint8", "int16", "float32"] = "uint8",
) -> Mixed:
    """Returns the batch with each image mixed with another of the batch, and its targets.

    Masks follow by `mix_masks`, boxes of objects by `mix_boxes`.

    For use inside a ``@pipeline_def``, after the augmentations and before normalisation.

    Args:
        images: uint8 HWC (see `dtype`), one size for the whole batch (H and W may differ), at
            most 16 channels, CPU or GPU. Or volumes, see `layout`.
        labels: on the CPU, as readers give them. ``cfg.labels="int"``: int32 or int64, () or (1,);
            ``"float"``: float32 (num_classes,). None where there are none.
        cfg: what to do. ``cfg.num_classes`` must be given where there are labels.
        size: (H, W) of the images, what you resized to. Needed by FMix alone, but a mix that knows
            it takes a third of the time, because boxes are looked up instead of computed. It draws
            the same.
            Of volumes (D, H, W), which must be given.
        layout: of volumes: ``"DHW"``, ``"DHWC"`` or ``"CDHW"``, at most 16 channels. They are mixed
            by CutMix, and by MixUp if uint8 or float32. CutMix's box is then (z, y, x, d, h, w) of
            side int(S * sqrt(1 - lam)) in each axis, so that it takes (1 - lam) ** 1.5 of the
            volume before it is clipped ("Cut to the Mix", MICCAI 2024); lam is that of the voxels.
        partners: (images, labels) of a second batch, of the same kind and size: sample i is mixed
            with its sample i, and ``cfg.partner`` is not used. For batches too small to pair
            within, down to one sample.
        params: the ``params`` of another mix, to repeat it on other data instead of drawing: then
            of `cfg` only what makes the targets counts, and where four images meet (`Mosaic`) lam
            is that of the box. With ``patterns`` (GridMix, FMix, SmoothMix, Cutout, AttentiveMix)
            they must be those that `mix` returned, and the images of one size.
        enabled: bool (), CPU, the same for the whole batch: where it is False nothing is mixed.
        objects: the boxes of each image, as `mix_boxes` takes them, for methods that look at them
            (`DetectionCutMix`); or the mask of each image (of `partners`, where these are given),
            on the CPU, for one that cuts out what is in it (`ObjectCutMix`): bool or integers up
            to 32 bits, (H, W) or (H, W, 1), of volumes (D, H, W) or (D, H, W, 1). For other methods
            they must be left out.
        saliency: of each image, for methods that look at it: a map, (h, w) of any small size, uint8
            or float32, or a point, float32 (2,), y and x in [0, 1]; on the CPU, of the image as it
            is here: cropped and flipped with it. `SaliencyMix` takes either, or where it is left
            out a native one; `AttentiveMix` takes maps, or likewise; `SnapMix` needs maps; for
            other methods it must be left out.
        groups: what ``partner="same"`` and ``"other"`` go by in place of the class: a number for
            each sample, int32 or int64, () or (1,), on the CPU: of a patient, a side, a source.
            Must be given with these where there are no labels, or rows of them.
        seed: seed of the draws. By default the pipeline's, from which every mix of a pipeline and
            every shard of its reader derives its own.
        keep_order: with ``False`` the samples may also change places within the batch, which
            saves a copy of the images (of volumes three), unless MixUp, ResizeMix, FMix, SmoothMix,
            Cutout or SnapMix is among the methods. In a shuffled training batch the order means
            nothing, but other outputs of the pipeline then no longer match: ``params.original``
            says who went where.
        dtype: type of the images. ``"float32"`` is for images that were normalised before, at
            four times the bytes; MixUp is then not rounded. ``"int16"`` is for volumes.

    Returns:
        `Mixed`: ``images`` as `images` are, on their device; ``targets`` float32
        (num_classes,), which sum to 1 where the labels do, but for `SnapMix`; or for
        ``cfg.targets="pair"`` (int64 (), int64 (), float32 ()), on the device of `images`; or None
        without labels; ``params`` on the CPU, with the box as the pixels show it and lam as the
        label has it.

    Raises:
        TypeError, ValueError: for what is known when the graph is built. Wrong image types and
            labels out of range are known only when it runs: a `Loader` raises ValueError for
            them, a bare pipeline DALI's RuntimeError, in which the rule stands.

    Follows Yun et al. 2019, "CutMix", and Zhang et al. 2018, "mixup". Deviation: lam and box are
    per sample by default (``mode="elem"``), and soft labels replace the mixed loss, which is the
    same for cross entropy.

    >>> from nvidia.dali import fn, pipeline_def
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    ... def pipe(root):
    ...     encoded, labels = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     mixed = mix(images, labels, MixConfig(num_classes=5), size=(32, 48))
    ...     return mixed.images, mixed.targets
    >>> images, targets = pipe(root=photo_folder).run()
    >>> images.shape()[0], targets.shape()[0]
    ((32, 48, 3), (5,))
    """
    checks.check_arguments(images, labels, cfg, partners, enabled)
    if params is None or objects is not None:
        checks.check_objects(objects, cfg, params)
    checks.check_saliency(saliency, cfg, params)
    if not isinstance(keep_order, bool):
        raise TypeError(f"`keep_order` must be a bool, got {keep_order!r}.")
    checks.check_groups(groups, cfg, labels is not None, params)
    group = None if groups is None else Group(checks.group_words(groups), 2)
    known = checks.checked_kind(cfg, size, layout, dtype)
    images, labels, shape = _checked(images, labels, cfg, dtype, known, layout)
    if partners is not None:
        others, other_labels, other_shape = _checked(*partners, cfg, dtype, known, layout)
        if isinstance(shape, DataNode) and isinstance(other_shape, DataNode):
            others = checks.same_shape(others, other_shape, shape)
        partners = others, other_labels
    if params is not None:
        checks.check_params(params, cfg, partners, enabled, seed, keep_order)
        if layout != "HWC":
            checks.check_params_of_volumes(params, dtype)
        elif checks.averages(params):
            images = checks.more_than_one_channel(images)
    of_volumes = None if known is None or layout == "HWC" else known
    batch = Batch(images, labels, shape, dtype, partners, of_volumes)
    nodes = [images] if labels is None else [images, labels]
    own_seed = _mix_seed(seed, nodes) if params is None else 0

    rule = checks.IMAGES if known is None else checks.IMAGES_OF_SIZE

    @states(rule if of_volumes is None else checks.VOLUMES)
    def mixed() -> Mixed:
        out = mix_batch(
            batch,
            cfg,
            seed=own_seed,
            params=params,
            enabled=enabled,
            objects=objects,
            saliency=saliency,
            group=group,
            keep_order=keep_order,
        )
        if of_volumes is None:
            return out
        in_slices = volumes.shape_of(of_volumes, layout)
        return out._replace(images=fn.reshape(out.images, shape=in_slices, layout=layout))

    return mixed()


@graph_function
def cutmix(
    images: DataNode,
    labels: DataNode,
    /,
    *,
    num_classes: int,
    alpha: float = 1.0,
    size: tuple[int, int] | None = None,
    seed: int | None = None,
    **options: Unpack[MixOptions],
) -> Mixed:
    """Returns the batch after CutMix: `mix` with ``MixConfig(cutmix_alpha=alpha, **options)``.

    >>> from nvidia.dali import fn, pipeline_def
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    ... def pipe(root):
    ...     encoded, labels = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     return cutmix(images, labels, num_classes=5, partner="derangement").targets
    >>> (targets,) = pipe(root=photo_folder).run()
    >>> float(targets.as_array().sum().round(5))
    16.0
    """
    cfg = MixConfig(num_classes=num_classes, cutmix_alpha=alpha, **options)
    return mix(images, labels, cfg, size=size, seed=seed)


@graph_function
def mixup(
    images: DataNode,
    labels: DataNode,
    /,
    *,
    num_classes: int,
    alpha: float = 0.2,
    size: tuple[int, int] | None = None,
    seed: int | None = None,
    **options: Unpack[MixOptions],
) -> Mixed:
    """Returns the batch after MixUp: `mix` with MixUp alone and the other options of `MixConfig`.

    Each image is lam * image + (1 - lam) * partner, rounded to the nearest, halves to even.

    >>> from nvidia.dali import fn, pipeline_def
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    ... def pipe(root):
    ...     encoded, labels = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     return mixup(images, labels, num_classes=5, alpha=0.4).targets
    >>> (targets,) = pipe(root=photo_folder).run()
    >>> float(targets.as_array().sum().round(5))
    16.0
    """
    cfg = MixConfig(num_classes=num_classes, cutmix_alpha=0.0, mixup_alpha=alpha, **options)
    return mix(images, labels, cfg, size=size, seed=seed)


class Batch(NamedTuple):
    """A batch that is known to be right.

    Fields:
        images: HWC, of one size.
        labels: int32 (1,) in range, or float32 (num_classes,); on the CPU. None: there are none.
        shape: of the images, int32 (3,); where the size is known, ``[H, W, C]``, in which C may be
            -1.
        dtype: "uint8", "int16" or "float32".
        partners: images and labels of a second batch, likewise.
        volumes: (D, H, W), where the images are volumes as `volumes.as_images` has them.
    """

    images: DataNode
    labels: DataNode | None
    shape: DataNode | list[int]
    dtype: str = "uint8"
    partners: tuple[DataNode, DataNode | None] | None = None
    volumes: tuple[int, ...] | None = None

    @property
    def size(self) -> Size:
        """Of the images or volumes."""
        return Size.of(self.shape) if self.volumes is None else Size.of_known(self.volumes)


def mix_batch(
    batch: Batch,
    cfg: MixConfig,
    *,
    seed: int,
    params: MixParams | None = None,
    enabled: DataNode | None = None,
    objects: DataNode | None = None,
    saliency: DataNode | None = None,
    group: Group | None = None,
    keep_order: bool = True,
) -> Mixed:
    """Returns what `mix` does, without its checks, which take as long as the pasting."""
    device = batch.images.device
    size, given = batch.size, params is not None
    if params is None:
        seen = None if saliency is None else Saliency.given(saliency)
        if seen is None and cfg.by_saliency and not cfg.needs_maps:
            seen = Saliency.native(batch.images)
        params = draw_plans(
            cfg,
            size,
            seed=seed,
            enabled=enabled,
            objects=objects,
            saliency=seen,
            labels=batch.labels if cfg.labels == "int" else None,
            group=group,
            keep_order=keep_order,
            second_batch=batch.partners is not None,
        )
    else:
        params = _given(params, size)
    images, labels = batch.partners or (None, None)
    target = None
    if batch.labels is not None:
        target = mix_labels(
            batch.labels,
            params,
            num_classes=_num_classes(cfg),
            label_smoothing=cfg.label_smoothing,
            labels_are=cfg.labels,
            targets=cfg.targets,
            device=device,
            partners=labels,
        )
    all_blended = not given and enabled is None and cfg.always_blends
    mixed = mix_images(Images(batch.images, batch.shape, batch.dtype, images, all_blended), params)
    return Mixed(mixed, target, params)


def draw_plans(
    cfg: MixConfig,
    size: Size,
    *,
    seed: int,
    enabled: DataNode | None = None,
    objects: DataNode | None = None,
    saliency: Saliency | None = None,
    labels: DataNode | None = None,
    group: Group | None = None,
    keep_order: bool = True,
    second_batch: bool = False,
) -> MixParams:
    """Returns who meets whom and what is done to them, on the CPU.

    Args:
        objects: boxes or masks, where `cfg` has a method that needs them.
        saliency: of the images, likewise.
        labels: int32 (1,), the classes, where there are some.
        group: of every sample, where it is not the class.
        second_batch: the partners are a second batch.

    Raises:
        ValueError: there are no `objects`, or is no `saliency`, where they are needed.
    """
    if (objects is None) == (cfg.avoids or cfg.object_method is not None):
        checks.check_objects(objects, cfg, None)
    if saliency is None and cfg.by_saliency:
        raise ValueError(checks.NO_SALIENCY)
    if group is None and labels is not None:
        group = Group(labels)
    checks.check_classes(cfg, labels is not None, group is not None)
    batch_size = Pipeline.current().max_batch_size
    enabled = None if enabled is None else checks.switch(enabled)
    methods = cfg.weighted_methods
    blends = [method.blends for method, _ in methods]
    # Pasting alone gains by a shuffle: it takes both images of a sample from where they are.
    keep_order = keep_order or any(
        method.blends
        or method.resizes
        or method.shows in ("mask", "weights", "fill")
        or method.sees == "maps"  # it resizes a part
        for method, _ in methods
    )
    pairs = pair(
        cfg.partner,
        batch_size,
        seed,
        keep_order=keep_order,
        second_batch=second_batch,
        small=size.axes == 3,
        of_four=cfg.tiles,
        group=group,
    )
    # A lam alone is drawn for each sample by itself, which is cheaper than dealing rows.
    alone = cfg.mode == "elem" and all(blends)
    draw = Draw.for_mode(cfg.mode, batch_size, seed, None if alone else pairs.order)
    mixed = _mixed_by_sample(cfg, draw, pairs, labels)
    exact = cfg.exact_method
    if exact is not None:
        params = exact.exact(size, draw, cfg.prob_of_all, _both(mixed, enabled))
    elif alone:
        params = plan_of(_draw_rows(cfg, draw, size, _both(mixed, enabled)), size)
    else:
        in_table = size._replace(node=draw.first(size.node), in_part=True)
        rows = _draw_rows(cfg, draw, in_table, enabled, with_flags=mixed is not None)
        if cfg.object_method is not None:
            assert objects is not None
            objects = object_boxes(objects, cfg.object_method, size, draw)
        beside = _beside(pairs, objects, saliency)
        params = _dealt(rows, draw, in_table, size, beside, mixed)
    if params.blended is None and any(blends):
        params = params._replace(blended=fn.ones(shape=[], dtype=types.BOOL))
    return params._replace(
        original=pairs.original,
        partner=pairs.partner,
        others=pairs.others,
        paired=pairs.paired,
        size=size,
    )


def _mixed_by_sample(
    cfg: MixConfig, draw: Draw, pairs: Pairs, labels: DataNode | None
) -> DataNode | None:
    """Returns which samples are mixed, bool (); None where none differs from others in that."""
    if cfg.prob_of_class is None:
        return pairs.paired
    assert labels is not None
    own = gathered(labels, pairs.original)
    return _both(draw.coin_of("apply", own, cfg.prob_of_class), pairs.paired)


def _both(one: DataNode | None, other: DataNode | None) -> DataNode | None:
    """Returns where both are True; None stands for everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _beside(pairs: Pairs, objects: DataNode | None, saliency: Saliency | None) -> Beside:
    """Returns what there is of the two images of every sample besides their pixels."""
    own, other = pairs.original, pairs.partner
    return Beside(
        None if objects is None else (gathered(objects, own), gathered(objects, other)),
        None if saliency is None else (saliency.gathered(own), saliency.gathered(other)),
    )


def _dealt(
    rows: Rows,
    draw: Draw,
    in_table: Size,
    size: Size,
    beside: Beside,
    mixed: DataNode | None,
) -> MixParams:
    """Returns the plan of each sample, where it needs what is beside the images, completed."""
    if mixed is not None:
        rows = with_unmixed(rows, in_table)
    table = packed(rows, in_table, draw.first)
    if not rows.later:
        return unpacked(draw.deal(table, mixed), rows, size)
    columns = [one.columns for one in rows.later]
    row, at = draw.deal(fn.cat(*columns, table, axis=1), mixed), 0
    found = []
    for one in rows.later:
        found.append(one.complete(row[at : at + one.width], beside, size))
        at += one.width
    return completed(unpacked(row[at:], rows, size), rows, size, found)


def _draw_rows(
    cfg: MixConfig,
    draw: Draw,
    size: Size,
    enabled: DataNode | None,
    with_flags: bool = False,
) -> Rows:
    """Returns the plans of a batch as a table.

    Args:
        with_flags: also where all rows of the table are of one method.
    """
    methods = [method for method, _ in cfg.weighted_methods]
    mixed = None if enabled is None else draw.repeat(enabled)
    if cfg.prob_of_all < 1:
        mixed = _both(draw.coin("apply", cfg.prob_of_all), mixed)
    if mixed is None and with_flags:
        mixed = draw.true()
    chosen = draw.one_of("switch", [weight for _, weight in cfg.weighted_methods])
    rows = []
    for i, method in enumerate(methods):
        again = [type(other) for other in methods[:i]].count(type(method))
        rows.append(method.rows(size, draw.named(again)))
    return choose(methods, rows, chosen, mixed, size)


def _given(params: MixParams, size: Size) -> MixParams:
    """Returns parameters that were given as drawn ones are, each sample a table of one row."""
    assert params.box is not None  # see checks.check_params
    lam, box = (fn.reshape(x, shape=[1, -1]) for x in (params.lam, params.box))
    flags = {name: getattr(params, name) for name in FLAGS}
    flags = {name: None if x is None else fn.reshape(x, shape=[1, -1]) for name, x in flags.items()}
    blended, tiled = flags["blended"], flags["tiled"]
    checks.check_patterns(params, size)
    if params.patterns and params.size is not None:
        box = checks.of_one_size(box, params.size.node, size.node)
    box = checks.in_image(box, size.node, axes=size.axes)
    if tiled is not None:
        box = checks.in_corner(box, tiled, size.node)
    box = boxes.normalised(box, size.node, axes=size.axes)
    if blended is not None:
        box = boxes.where(blended ^ True, box, size.nowhere())
    final = plan_of(Rows(lam, box, **flags), size)
    original, partner = (
        None if index is None else checks.in_batch(index)
        for index in (params.original, params.partner)
    )
    if params.source is not None:
        final = _given_source(final, params, size)
    others = params.others
    if others is not None:
        others = fn.stack(*(checks.in_batch(others[k]) for k in range(2)))
    return final._replace(
        original=original,
        partner=partner,
        others=others,
        paired=params.paired,
        size=size,
        patterns=params.patterns,
    )


def _given_source(final: MixParams, params: MixParams, size: Size) -> MixParams:
    """Returns a given plan with what is resized into its box."""
    assert params.source is not None
    assert params.lam_partner is not None
    assert final.box is not None
    source = checks.in_image(fn.reshape(params.source, shape=[1, 4]), size.node)
    pasted = boxes.area(fn.reshape(final.box, shape=[1, 4])) > 0
    source = boxes.where(pasted, boxes.normalised(source, size.node), size.nowhere())
    return with_source(final, source, fn.reshape(params.lam_partner, shape=[1, 1]))


def _checked(
    images: DataNode,
    labels: DataNode | None,
    cfg: MixConfig,
    dtype: str,
    known: tuple[int, ...] | None,
    layout: str,
) -> tuple[DataNode, DataNode | None, DataNode | list[int]]:
    """Returns images, labels and the images' shape, which fail where they cannot be mixed."""
    check = class_index if cfg.labels == "int" else checks.class_row
    if known is None:
        images, shape = checks.images_of_one_size(images, dtype)
        return images, None if labels is None else check(labels, _num_classes(cfg)), shape
    of_size = [*known, -1] if layout == "HWC" else volumes.shape_of(known, layout)
    of_shape = checks.images_of_size if layout == "HWC" else checks.volumes_of_size
    images, ones = of_shape(images, dtype, of_size)
    if labels is None or layout != "HWC":
        images = checks.unless_failed(images, of_size, ones)
    if labels is not None:
        labels = check(labels, _num_classes(cfg), ones)
    if layout == "HWC":
        return images, labels, of_size
    images, in_rows = volumes.as_images(images, known, layout, checks.DTYPES[dtype])
    return images, labels, in_rows


def _num_classes(cfg: MixConfig) -> int:
    assert cfg.num_classes is not None  # see checks.check_arguments
    return cfg.num_classes


_COUNTS: weakref.WeakKeyDictionary[Pipeline, int] = weakref.WeakKeyDictionary()


def _mix_seed(seed: int | None, nodes: Iterable[DataNode]) -> int:
    """Returns the seed of a mix; of the pipeline's every mix and every shard gets its own."""
    if seed is not None:
        return op_seed(checked_int("seed", seed, 0, 2**63 - 1), "mix")
    pipeline = Pipeline.current()
    count = _COUNTS[pipeline] = _COUNTS.get(pipeline, -1) + 1
    seed, shard = pipeline.seed, shard_of(nodes)
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    # The first of one shard has the seed that it always had.
    path: list[str | int] = [count] if count else []
    path += ["shard", shard] if shard else []
    return op_seed(seed, "mix", *path)
