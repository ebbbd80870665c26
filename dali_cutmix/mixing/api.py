"""mix: sample -> box -> composite -> target, as a graph of native DALI operators."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix import boxes, checks, compositing, sampling, targets
from dali_cutmix.config import MixConfig, checked_choice, checked_int
from dali_cutmix.sampling import Draws, MixParams

__all__ = ["Mixed", "cutmix", "draw_known", "mix", "mix_known", "mixup"]

_LITTLE_VARIETY = 16


class Mixed(NamedTuple):
    """A mixed batch: ``images`` and ``targets`` on the images' device, ``params`` on the CPU."""

    images: DataNode
    targets: DataNode | tuple[DataNode, DataNode, DataNode]
    params: MixParams


def mix(
    images: DataNode,
    labels: DataNode,
    cfg: MixConfig,
    *,
    partners: tuple[DataNode, DataNode] | None = None,
    params: MixParams | None = None,
    enabled: DataNode | None = None,
    seed: int | None = None,
    keep_order: bool = True,
    dtype: Literal["uint8", "float32"] = "uint8",
) -> Mixed:
    """Returns the batch with each image mixed with another of the batch, and its targets.

    For use inside a ``@pipeline_def``, after the augmentations and before normalisation.

    Args:
        images: uint8 HWC (see `dtype`), one size for the whole batch (H and W may differ), at
            most 16 channels, CPU or GPU.
        labels: on the CPU, as readers give them. ``cfg.labels="int"``: int32 or int64, () or (1,);
            ``"float"``: float32 (num_classes,).
        cfg: what to do. ``cfg.num_classes`` must be given.
        partners: (images, labels) of a second batch, of the same kind and size: sample i is mixed
            with its sample i, and ``cfg.partner`` is not used. For batches too small to pair
            within, down to one sample.
        params: draws to use instead of drawing, see `MixParams`. Pass the ``params`` of another
            mix to repeat it on other data: then of `cfg` only what makes the targets counts.
        enabled: bool (), CPU, the same for the whole batch: where it is False nothing is mixed.
        seed: seed of the draws; by default the pipeline's. Give every shard its own, and every
            mix() where a pipeline has several.
        keep_order: with ``False`` the samples may also change places within the batch, which
            saves CutMix a copy of the images. In a shuffled training batch the order means
            nothing, but other outputs of the pipeline then no longer match: ``params.original``
            says who went where.
        dtype: type of the images. ``"float32"`` is for images that were normalised before, at
            four times the bytes; MixUp is then not rounded.

    Returns:
        `Mixed`: ``images`` as `images` are, on their device; ``targets`` float32
        (num_classes,), or for ``cfg.targets="pair"`` (int64 (), int64 (), float32 ()), on the
        device of `images`; ``params`` on the CPU, with the box as the pixels show it and
        lam as the label has it.

    Raises:
        TypeError, ValueError: for what is known when the graph is built. Wrong image types and
            labels out of range are known only when it runs: a `Loader` raises ValueError for
            them, a bare pipeline DALI's RuntimeError, which quotes the failed check.

    Follows Yun et al. 2019, "CutMix", and Zhang et al. 2018, "mixup". Deviation: lam and box are
    per sample by default (``mode="elem"``), and soft labels replace the mixed loss, which is the
    same for cross entropy.

    >>> from nvidia.dali import fn, pipeline_def
    >>> @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    ... def pipe(root):
    ...     encoded, labels = fn.readers.file(file_root=root)
    ...     images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    ...     mixed = mix(images, labels, MixConfig(num_classes=5))
    ...     return mixed.images, mixed.targets
    >>> images, targets = pipe(root=photo_folder).run()
    >>> images.shape()[0], targets.shape()[0]
    ((32, 48, 3), (5,))
    """
    _checked(images, labels, cfg, partners, enabled)
    checked_choice("dtype", dtype, ("uint8", "float32"))
    if not isinstance(keep_order, bool):
        raise TypeError(f"`keep_order` must be a bool, got {keep_order!r}.")
    images, shape = checks.hwc(images, dtype)
    size = shape[:2]
    others = None
    if partners is not None:
        others = checks.same_shape(*checks.hwc(partners[0], dtype), shape)
    if params is None:
        drawn = sampling.draw(
            cfg,
            Pipeline.current().max_batch_size,
            _mix_seed(seed),
            keep_order=keep_order,
            enabled=None if enabled is None else checks.switch(enabled),
            own_partners=partners is None,
        )
        params, regions = _resolved_draws(drawn, cfg, size, images.device)
        always = drawn.blended is None and not cfg.cutmix_alpha
    else:
        _check_params(params, cfg, partners, enabled, seed, keep_order)
        cuts = params.box is not None or cfg.cutmix_alpha > 0
        always = params.blended is None and not cuts
        params, regions = _resolved_params(params, cfg, size, images.device)
    check = checks.class_index if cfg.labels == "int" else checks.class_row
    labels = check(labels, _num_classes(cfg))
    other_labels = None if partners is None else check(partners[1], _num_classes(cfg))
    target = _target(labels, other_labels, params, cfg, images.device)
    how = _How(always, dtype, shape)
    return Mixed(_mixed_images(images, others, params, regions, how), target, params)


def mix_known(
    images: DataNode,
    labels: DataNode,
    cfg: MixConfig,
    *,
    size: tuple[int, int],
    enabled: DataNode | None = None,
    seed: int | None = None,
    keep_order: bool = True,
    dtype: Literal["uint8", "float32"] = "uint8",
) -> Mixed:
    """Returns what `mix` does, of images and labels that the same graph has just made.

    For pipelines, not for their users: that the images are (H, W, C) of `size` and `dtype` and the
    labels int32 (1,) in range is not looked at, which in a batch of 64 takes as long as the
    pasting. CutMix alone with the default ``cutmix_alpha=1`` and ``mode="elem"`` draws its boxes
    by `sampling.draw_boxes`: the same distribution, other numbers.
    """
    _checked(images, labels, cfg, None, enabled)
    params, regions, how = draw_known(
        cfg,
        size,
        device=images.device,
        enabled=enabled,
        seed=seed,
        keep_order=keep_order,
        dtype=dtype,
    )
    target = _target(labels, None, params, cfg, images.device)
    return Mixed(_mixed_images(images, None, params, regions, how), target, params)


def draw_known(
    cfg: MixConfig,
    size: tuple[int, int],
    *,
    device: str = "cpu",
    enabled: DataNode | None = None,
    seed: int | None = None,
    keep_order: bool = True,
    dtype: Literal["uint8", "float32"] = "uint8",
) -> tuple[MixParams, compositing.Regions, _How]:
    """Returns the draws of `mix_known`: final parameters, what is pasted, what is known of all."""
    batch_size, own, shape = Pipeline.current().max_batch_size, _mix_seed(seed), [*size, -1]
    enabled = None if enabled is None else checks.switch(enabled)
    if sampling.has_law(cfg, size):
        _, original, partner = sampling.draw_partners(cfg, batch_size, own, keep_order=keep_order)
        params, regions = _of_boxes(sampling.draw_boxes(cfg, size, own, enabled), size)
        params = params._replace(partner=partner, original=original)
        return params, regions, _How(False, dtype, shape)
    drawn = sampling.draw(cfg, batch_size, own, keep_order=keep_order, enabled=enabled)
    hw = types.Constant(np.array(size, np.int32))
    params, regions = _resolved_draws(drawn, cfg, hw, device)
    always = drawn.blended is None and not cfg.cutmix_alpha
    return params, regions, _How(always, dtype, shape)


class _How(NamedTuple):
    """What is known of all batches when the graph is built.

    Fields:
        always_blended: every sample is blended.
        dtype: of the images.
        shape: of the images, int32 (3,), or a list in which C is -1.
    """

    always_blended: bool
    dtype: Literal["uint8", "float32"]
    shape: DataNode | list[int]


def _target(
    labels: DataNode, others: DataNode | None, params: MixParams, cfg: MixConfig, device: str
) -> DataNode | tuple[DataNode, DataNode, DataNode]:
    """Returns the targets on `device`; `others` are the partners' labels if not in the batch."""
    if cfg.targets == "pair":
        parts = (*_labels_of_both(labels, others, params), params.lam)
        label_a, label_b, lam = (x.gpu() for x in parts) if device == "gpu" else parts
        return targets.pair_targets(label_a, label_b, lam)
    if cfg.labels == "float":
        both = fn.stack(*_labels_of_both(labels, others, params), axis=1)
    elif params.original is not None:
        both = targets.both_of(labels, params.original, params.partner)
    else:
        both = fn.cat(*_labels_of_both(labels, others, params))
    return targets.soft_targets(
        both.gpu() if device == "gpu" else both,
        params.lam,
        num_classes=_num_classes(cfg),
        label_smoothing=cfg.label_smoothing,
        kind=cfg.labels,
    )


def _mixed_images(
    images: DataNode,
    others: DataNode | None,
    params: MixParams,
    regions: compositing.Regions,
    how: _How,
) -> DataNode:
    """Returns the mixed images; only the samples that are blended pay for it.

    Batches are split and merged by reference, without a copy.
    """
    if params.blended is None and not how.always_blended:
        return _pasted(images, others, params, regions)
    if images.device == "gpu":
        return _cut_or_blended_on_gpu(images, others, params, regions, how)
    pasted = _pasted(images, others, params, regions)
    if how.always_blended:
        return compositing.blend_stacked(pasted, params.lam, how.shape)
    (stacked, cut), (lam, _) = _split((pasted, params.lam), params.blended)
    shape = cut_shape = how.shape
    if isinstance(how.shape, DataNode):
        ((shape, cut_shape),) = _split([how.shape], params.blended)
    blended = compositing.blend_stacked(stacked, lam, shape)
    cut = compositing.shaped(cut, cut_shape)
    return fn._conditional.merge(blended, cut, predicate=params.blended)


def _pasted(
    images: DataNode, others: DataNode | None, params: MixParams, regions: compositing.Regions
) -> DataNode:
    """Returns each image with a region of its partner's; a stacked sample has both, see Regions."""
    if params.original is not None:
        return compositing.paste_within(images, params.original, params.partner, regions)
    if others is None:
        others = compositing.gather(images, params.partner)
    return compositing.paste(images, others, regions)


def _cut_or_blended_on_gpu(
    images: DataNode,
    others: DataNode | None,
    params: MixParams,
    regions: compositing.Regions,
    how: _How,
) -> DataNode:
    gather = compositing.gather
    if not isinstance(how.shape, DataNode):  # known to be right
        gather = fn.permute_batch  # a seventh of the instructions
    if others is None:
        others = gather(images, indices=params.partner)
    if params.original is not None:
        images = gather(images, indices=params.original)
    if how.always_blended:
        return compositing.blend_pair(images, others, params.lam, how.dtype)
    (to_blend, to_cut), (partners, patches), (lam, _) = _split(
        (images, others, params.lam), params.blended
    )
    own = compositing.Regions(*(part[1] for part in _split(regions[:3], params.blended)))
    cut = compositing.paste(to_cut, patches, own)
    blended = compositing.blend_pair(to_blend, partners, lam, how.dtype)
    return fn._conditional.merge(blended, cut, predicate=params.blended)


def _split(nodes: Iterable[DataNode], predicate: DataNode) -> list[tuple[DataNode, DataNode]]:
    return [tuple(fn._conditional.split(node, predicate=predicate)) for node in nodes]


def cutmix(
    images: DataNode,
    labels: DataNode,
    *,
    num_classes: int,
    alpha: float = 1.0,
    seed: int | None = None,
    **options: Any,
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
    return mix(images, labels, cfg, seed=seed)


def mixup(
    images: DataNode,
    labels: DataNode,
    *,
    num_classes: int,
    alpha: float = 0.2,
    seed: int | None = None,
    **options: Any,
) -> Mixed:
    """Returns the batch after MixUp: `mix` with MixUp alone and the other options of `MixConfig`.

    Each image is lam * image + (1 - lam) * partner, rounded to the nearest, halves to
    even.

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
    return mix(images, labels, cfg, seed=seed)


def _of_boxes(rows: DataNode, size: tuple[int, int]) -> tuple[MixParams, compositing.Regions]:
    """Returns the parameters of boxes as `sampling.draw_boxes` gives them."""
    shares = types.Constant(boxes.shares(size))
    lam = fn.slice(shares, start=rows[3], shape=[1, 1], axes=[0, 1])
    regions = compositing.Regions(rows[:2], rows[:2], rows[2:])
    box = fn.cat(rows[1], rows[3])
    return MixParams(lam=fn.reshape(lam, shape=[]), box=box), regions


def _resolved_draws(
    drawn: Draws, cfg: MixConfig, size: DataNode, device: str
) -> tuple[MixParams, compositing.Regions]:
    """Returns `_resolved` of draws in a table, for each sample."""
    hw = drawn.table.of_first(size)
    lam, box = _resolved(drawn.lam, drawn.position, drawn.sides, drawn.blended, cfg, hw)
    always = drawn.blended is None and not cfg.cutmix_alpha
    stacked = _stacked(drawn.blended, always, box, device)
    columns = [
        compositing.region_columns(box, hw, stacked),
        box,
        fn.reinterpret(lam, dtype=types.INT32),
    ]
    if drawn.blended is not None:
        columns.append(fn.cast(drawn.blended, dtype=types.INT32))
    row = drawn.table.rows(fn.cat(*columns, axis=1))
    regions = compositing.regions_of_row(row, stacked=stacked is not None)
    rest = 8 if stacked is None else 14
    blended = None if drawn.blended is None else row[rest + 5] != 0
    if always:
        blended = fn.ones(shape=[], dtype=types.BOOL)
    params = MixParams(
        lam=fn.reinterpret(row[rest + 4], dtype=types.FLOAT),
        partner=drawn.partner,
        blended=blended,
        box=row[rest : rest + 4],
        original=drawn.original,
    )
    return params, regions


def _stacked(blended: DataNode | None, always: bool, box: DataNode, device: str) -> DataNode | None:
    """Returns which samples have the partner below the image, int32 (N, 1): the blended ones.

    None where there are none: on a GPU, and where nothing is blended.
    """
    if device == "gpu" or (blended is None and not always):
        return None
    return box[:, :1] * 0 + 1 if blended is None else fn.cast(blended, dtype=types.INT32)


def _resolved_params(
    params: MixParams, cfg: MixConfig, size: DataNode, device: str
) -> tuple[MixParams, compositing.Regions]:
    """Returns `_resolved` of parameters that were given, each sample a table of one row."""

    def row(x: DataNode | None, columns: int) -> DataNode | None:
        return None if x is None else fn.reshape(x, shape=[1, columns])

    lam, blended = params.lam, row(params.blended, 1)
    if params.box is None:
        lam, box = _resolved(
            row(lam, 1), row(params.position, 2), row(params.sides, 2), blended, cfg, size
        )
        lam = fn.reshape(lam, shape=[])
    else:
        box = boxes.normalised(row(params.box, 4), size, blended)
    always = params.box is None and not cfg.cutmix_alpha and blended is None
    stacked = _stacked(blended, always, box, device)
    regions = compositing.regions_of_row(
        compositing.region_columns(box, size, stacked)[0], stacked=stacked is not None
    )
    final = params._replace(
        lam=fn.cast(lam, dtype=types.FLOAT),
        position=None,
        sides=None,
        blended=fn.ones(shape=[], dtype=types.BOOL) if always else params.blended,
        box=fn.reshape(box, shape=[4]),
    )
    return final, regions


def _resolved(
    lam: DataNode,
    position: DataNode | None,
    sides: DataNode | None,
    blended: DataNode | None,
    cfg: MixConfig,
    size: DataNode,
) -> tuple[DataNode, DataNode]:
    """Returns lam as the label shall have it, float32 (N, 1), and boxes, int32 (N, 4)."""
    if not cfg.cutmix_alpha:
        box = fn.cat(size, size * 0)
        return fn.cast(lam, dtype=types.FLOAT), box + fn.cast(lam * 0.0, dtype=types.INT32)
    cut_lam = lam if blended is None else lam + blended * (1.0 - lam)
    box = _box(cut_lam, position, sides, cfg, size)
    if cfg.correct_lam:
        corrected = boxes.corrected_lam(box, size)
        lam = corrected if blended is None else corrected - blended * (1.0 - lam)
    return fn.cast(lam, dtype=types.FLOAT), box


def _box(
    lam: DataNode,
    position: DataNode | None,
    sides: DataNode | None,
    cfg: MixConfig,
    size: DataNode,
) -> DataNode:
    if cfg.minmax is not None:
        return boxes.between(lam, sides, position, size, cfg.minmax)
    if cfg.box == "inside":
        return boxes.inside(lam, position, size)
    return boxes.around(lam, position, size, odd=cfg.box == "timm")


def _labels_of_both(
    labels: DataNode, others: DataNode | None, params: MixParams
) -> tuple[DataNode, DataNode]:
    if others is None:
        others = fn.permute_batch(labels, indices=params.partner)
    if params.original is not None:
        labels = fn.permute_batch(labels, indices=params.original)
    return labels, others


def _checked(
    images: DataNode,
    labels: DataNode,
    cfg: MixConfig,
    partners: tuple[DataNode, DataNode] | None,
    enabled: DataNode | None,
) -> None:
    """Raises for what is known to be wrong while the graph is built."""
    if not isinstance(cfg, MixConfig):
        raise TypeError(f"`cfg` must be a MixConfig, got {cfg!r}.")
    nodes = [("images", images), ("labels", labels)]
    if partners is not None:
        if not isinstance(partners, tuple) or len(partners) != 2:
            raise TypeError(f"`partners` must be (images, labels), got {partners!r}.")
        nodes += [("partners", node) for node in partners]
        if cfg.mode == "pair":
            raise ValueError('`mode` must be "elem" or "batch" with `partners`, got "pair".')
    for name, node in nodes:
        if not isinstance(node, DataNode):
            kind = type(node).__name__
            raise TypeError(f"`{name}` must be a DataNode of a pipeline, got {kind}.")
    if enabled is not None and not isinstance(enabled, DataNode):
        raise TypeError(f"`enabled` must be a DataNode of a pipeline, got {enabled!r}.")
    if enabled is not None and enabled.device != "cpu":
        raise ValueError('`enabled` must be on the CPU, got device "gpu".')
    if any(node.device != "cpu" for name, node in nodes[1::2]):
        raise ValueError(
            '`labels` must be on the CPU, got device "gpu": pass them as the reader gives them.'
        )
    if partners is not None and partners[0].device != images.device:
        raise ValueError(
            f"`partners` must be on the device of `images`, got {partners[0].device} "
            f"and {images.device}."
        )
    _num_classes(cfg)
    pipeline = Pipeline.current()
    if pipeline is None:
        raise RuntimeError("mix() must be called inside a @pipeline_def function.")
    batch_size = pipeline.max_batch_size
    if partners is None:
        if batch_size < 2:
            raise ValueError(
                f"`batch_size` must be at least 2 for mixing, got {batch_size}: "
                "pass `partners=` to mix with a second batch."
            )
        if batch_size < _LITTLE_VARIETY:
            warnings.warn(
                f"Mixing in a batch of {batch_size}: pairing has little variety below "
                f"{_LITTLE_VARIETY}.",
                stacklevel=4,
            )


def _num_classes(cfg: MixConfig) -> int:
    if cfg.num_classes is None:
        raise ValueError("`num_classes` must be given in MixConfig to mix in a pipeline, got None.")
    return cfg.num_classes


def _check_params(
    params: MixParams,
    cfg: MixConfig,
    partners: tuple[DataNode, DataNode] | None,
    enabled: DataNode | None,
    seed: int | None,
    keep_order: bool,
) -> None:
    if not isinstance(params, MixParams) or (
        cfg.cutmix_alpha > 0 and params.box is None and params.position is None
    ):
        raise TypeError(f"`params` must be MixParams with a box or a position, got {params!r}.")
    if enabled is not None or seed is not None or not keep_order:
        raise ValueError(
            "`enabled`, `seed` and `keep_order` must be left out with `params`: nothing is drawn."
        )
    if cfg.cutmix_alpha and cfg.mixup_alpha and params.box is None and params.blended is None:
        raise ValueError("`params` must say who is `blended` where CutMix and MixUp are both on.")
    if not cfg.mixup_alpha and params.box is None and params.blended is not None:
        raise ValueError("`params` must have no `blended` where MixUp is off.")
    if (partners is None) == (params.partner is None) or (
        partners is not None and params.original is not None
    ):
        raise ValueError(
            "`params` must have a `partner` in the batch, or else `partners` must be given "
            "(and then no `partner` and no `original`)."
        )


def _mix_seed(seed: int | None) -> int:
    if seed is None:
        seed = Pipeline.current().seed
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    return sampling.op_seed(checked_int("seed", seed, 0, 2**63 - 1), "mix")
