"""mix: pair -> plan -> follow, as a graph of native DALI operators."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function, shard_of
from dali_cutmix._graph import class_index
from dali_cutmix._rules import states
from dali_cutmix._seeds import op_seed
from dali_cutmix._validation import checked_choice, checked_int, checked_size
from dali_cutmix.mixing import boxes, checks
from dali_cutmix.mixing.config import MixConfig, MixOptions
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.followers.images import Images, mix_images
from dali_cutmix.mixing.followers.labels import mix_labels
from dali_cutmix.mixing.pairing import pair
from dali_cutmix.mixing.plan import MixParams, Rows, Size, choose, packed, plan_of, unpacked

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11; checkers bring their own

__all__ = ["Batch", "Mixed", "cutmix", "draw_plans", "mix", "mix_batch", "mixup"]


class Mixed(NamedTuple):
    """A mixed batch: ``images`` and ``targets`` on the images' device, ``params`` on the CPU."""

    images: DataNode
    # Or a tuple of three, where a type checker would refuse every pipeline that returns it.
    targets: DataNode | Any
    params: MixParams


@graph_function
def mix(
    images: DataNode,
    labels: DataNode,
    cfg: MixConfig,
    *,
    size: tuple[int, int] | None = None,
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
        size: (H, W) of the images, what you resized to. Not needed, but a mix that knows it takes
            a third of the time, because boxes are looked up instead of computed. It draws the same.
        partners: (images, labels) of a second batch, of the same kind and size: sample i is mixed
            with its sample i, and ``cfg.partner`` is not used. For batches too small to pair
            within, down to one sample.
        params: the ``params`` of another mix, to repeat it on other data instead of drawing: then
            of `cfg` only what makes the targets counts.
        enabled: bool (), CPU, the same for the whole batch: where it is False nothing is mixed.
        seed: seed of the draws. By default the pipeline's, from which every mix of a pipeline and
            every shard of its reader derives its own.
        keep_order: with ``False`` the samples may also change places within the batch, which
            saves a copy of the images. In a shuffled training batch the order means nothing, but
            other outputs of the pipeline then no longer match: ``params.original`` says who went
            where.
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
    checked_choice("dtype", dtype, ("uint8", "float32"))
    if not isinstance(keep_order, bool):
        raise TypeError(f"`keep_order` must be a bool, got {keep_order!r}.")
    known = None if size is None else checked_size(size)
    images, labels, shape = _checked(images, labels, cfg, dtype, known)
    if partners is not None:
        others, other_labels, other_shape = _checked(*partners, cfg, dtype, known)
        if isinstance(shape, DataNode) and isinstance(other_shape, DataNode):
            others = checks.same_shape(others, other_shape, shape)
        partners = others, other_labels
    if params is not None:
        checks.check_params(params, partners, enabled, seed, keep_order)
        if params.blended is not None:
            images = checks.more_than_one_channel(images)
    batch = Batch(images, labels, shape, dtype, partners)
    own_seed = _mix_seed(seed, (images, labels)) if params is None else 0

    @states(checks.IMAGES if known is None else checks.IMAGES_OF_SIZE)
    def mixed() -> Mixed:
        return mix_batch(
            batch, cfg, seed=own_seed, params=params, enabled=enabled, keep_order=keep_order
        )

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
        labels: int32 (1,) in range, or float32 (num_classes,); on the CPU.
        shape: of the images, int32 (3,); where the size is known, ``[H, W, -1]``.
        dtype: "uint8" or "float32".
        partners: images and labels of a second batch, likewise.
    """

    images: DataNode
    labels: DataNode
    shape: DataNode | list[int]
    dtype: Literal["uint8", "float32"] = "uint8"
    partners: tuple[DataNode, DataNode] | None = None


def mix_batch(
    batch: Batch,
    cfg: MixConfig,
    *,
    seed: int,
    params: MixParams | None = None,
    enabled: DataNode | None = None,
    keep_order: bool = True,
) -> Mixed:
    """Returns what `mix` does, without its checks, which take as long as the pasting."""
    device = batch.images.device
    size, given = Size.of(batch.shape), params is not None
    if params is None:
        params = draw_plans(
            cfg,
            size,
            seed=seed,
            enabled=enabled,
            keep_order=keep_order,
            second_batch=batch.partners is not None,
        )
    else:
        params = _given(params, size)
    images, labels = batch.partners or (None, None)
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
    keep_order: bool = True,
    second_batch: bool = False,
) -> MixParams:
    """Returns who meets whom and what is done to them, on the CPU.

    Args:
        second_batch: the partners are a second batch.
    """
    batch_size = Pipeline.current().max_batch_size
    enabled = None if enabled is None else checks.switch(enabled)
    methods = cfg.weighted_methods
    blends = [method.blends for method, _ in methods]
    # Pasting alone gains by a shuffle: it takes both images of a sample from where they are.
    keep_order = keep_order or any(blends) or any(method.resizes for method, _ in methods)
    pairs = pair(cfg.partner, batch_size, seed, keep_order=keep_order, second_batch=second_batch)
    # A lam alone is drawn for each sample by itself, which is cheaper than dealing rows.
    alone = cfg.mode == "elem" and all(blends)
    draw = Draw.for_mode(cfg.mode, batch_size, seed, None if alone else pairs.order)
    exact = cfg.exact_method
    if exact is not None:
        params = exact.exact(size, draw, cfg.prob, enabled)
    else:
        in_table = Size(draw.first(size.node))
        rows = _draw_rows(cfg, draw, in_table, enabled)
        if alone:
            params = plan_of(rows, size)
        else:
            params = unpacked(draw.deal(packed(rows, in_table)), rows, size)
        if params.blended is None and any(blends):
            params = params._replace(blended=fn.ones(shape=[], dtype=types.BOOL))
    return params._replace(original=pairs.original, partner=pairs.partner)


def _draw_rows(cfg: MixConfig, draw: Draw, size: Size, enabled: DataNode | None) -> Rows:
    """Returns the plans of a batch as a table."""
    methods = [method for method, _ in cfg.weighted_methods]
    mixed = None if enabled is None else draw.repeat(enabled)
    if cfg.prob < 1:
        drawn = draw.coin("apply", cfg.prob)
        mixed = drawn if mixed is None else drawn & mixed
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
    blended, resized = (
        None if x is None else fn.reshape(x, shape=[1, -1])
        for x in (params.blended, params.resized)
    )
    box = boxes.normalised(checks.in_image(box, size.node), size.node)
    if blended is not None:
        box = boxes.where(blended ^ True, box, size.nowhere())
    rows = Rows(lam, box, blended, resized)
    final = plan_of(rows, size)
    original, partner = (
        None if index is None else checks.in_batch(index)
        for index in (params.original, params.partner)
    )
    return final._replace(original=original, partner=partner)


def _checked(
    images: DataNode,
    labels: DataNode,
    cfg: MixConfig,
    dtype: str,
    known: tuple[int, int] | None,
) -> tuple[DataNode, DataNode, DataNode | list[int]]:
    """Returns images, labels and the images' shape, which fail where they cannot be mixed."""
    check = class_index if cfg.labels == "int" else checks.class_row
    if known is None:
        images, shape = checks.images_of_one_size(images, dtype)
        return images, check(labels, _num_classes(cfg)), shape
    images, ones = checks.images_of_size(images, dtype, known)
    return images, check(labels, _num_classes(cfg), ones), [*known, -1]


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
