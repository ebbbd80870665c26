"""mix: sample -> box -> composite -> target, as a graph of native DALI operators."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix import boxes, checks, compositing, sampling, targets
from dali_cutmix.config import MixConfig
from dali_cutmix.sampling import MixParams

__all__ = ["Mixed", "cutmix", "mix"]

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
    params: MixParams | None = None,
    seed: int | None = None,
    keep_order: bool = True,
) -> Mixed:
    """Returns the batch with each image mixed with another of the batch, and its targets.

    For use inside a ``@pipeline_def``, after the augmentations and before normalisation.

    Args:
        images: uint8 HWC, one size for the whole batch (H and W may differ), CPU or GPU.
        labels: on the CPU, as readers give them. ``cfg.labels="int"``: int32 or int64, () or (1,);
            ``"float"``: float32 (num_classes,).
        cfg: what to do. ``cfg.num_classes`` must be given.
        params: draws to use instead of drawing, see `MixParams`. Pass the ``params`` of another
            mix to repeat it on other data.
        seed: seed of the draws; by default the pipeline's. Give every shard its own, and every
            mix() where a pipeline has several.
        keep_order: with ``False`` the samples also change places within the batch, which saves a
            copy of the images. In a shuffled training batch the order means nothing, but other
            outputs of the pipeline then no longer match: ``params.original`` says who went where.

    Returns:
        `Mixed`: ``images`` uint8 HWC on the device of `images`; ``targets`` float32
        (num_classes,), or for ``cfg.targets="pair"`` (int64 (), int64 (), float32 ()), on the
        device of `images`; ``params`` on the CPU, with lam and box as the pixels show them.

    Raises:
        TypeError, ValueError: for what is known when the graph is built. Wrong image types and
            labels out of range are known only when it runs: a `Loader` raises ValueError for
            them, a bare pipeline DALI's RuntimeError, which quotes the failed check.

    Follows Yun et al. 2019, "CutMix". Deviation: lam and box are per sample by default
    (``mode="elem"``), and soft labels replace the mixed loss, which is the same for cross entropy.

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
    num_classes = _checked(images, labels, cfg)
    size = images.shape(dtype=types.INT32)[:2]
    if params is None:
        params = sampling.sample(cfg, size, _mix_seed(seed), keep_order=keep_order)
    params = _resolved(params, cfg, size)

    label_a, label_b = _labels_of_both(labels, params, cfg, num_classes)
    lam = params.lam
    if images.device == "gpu":
        label_a, label_b, lam = label_a.gpu(), label_b.gpu(), lam.gpu()
    target: DataNode | tuple[DataNode, DataNode, DataNode]
    if cfg.targets == "pair":
        target = targets.pair_targets(label_a, label_b, lam)
    else:
        target = targets.soft_targets(
            label_a,
            label_b,
            lam,
            num_classes=num_classes,
            label_smoothing=cfg.label_smoothing,
            labels=cfg.labels,
        )
    mixed = compositing.paste(images, params.partner, params.box, size, params.original)
    return Mixed(mixed, target, params)


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


def _resolved(params: MixParams, cfg: MixConfig, size: DataNode) -> MixParams:
    """Returns the parameters with the box, and lam as the label shall have it (float32)."""
    if params.box is not None:
        return params._replace(lam=fn.cast(params.lam, dtype=types.FLOAT))
    box = boxes.paper_box(params.lam, params.centre, size)
    lam = boxes.corrected_lam(box, size) if cfg.correct_lam else params.lam
    return params._replace(box=box, lam=fn.cast(lam, dtype=types.FLOAT))


def _labels_of_both(
    labels: DataNode, params: MixParams, cfg: MixConfig, num_classes: int
) -> tuple[DataNode, DataNode]:
    if cfg.labels == "int":
        labels = checks.class_index(labels, num_classes)
    else:
        labels = checks.class_row(labels, num_classes)
    label_b = fn.permute_batch(labels, indices=params.partner)
    if params.original is None:
        return labels, label_b
    return fn.permute_batch(labels, indices=params.original), label_b


def _checked(images: DataNode, labels: DataNode, cfg: MixConfig) -> int:
    """Returns num_classes; raises for everything that is known while the graph is built."""
    if not isinstance(cfg, MixConfig):
        raise TypeError(f"`cfg` must be a MixConfig, got {cfg!r}.")
    for name, node in (("images", images), ("labels", labels)):
        if not isinstance(node, DataNode):
            raise TypeError(
                f"`{name}` must be a DataNode of a pipeline, got {type(node).__name__}."
            )
    if labels.device != "cpu":
        raise ValueError(
            '`labels` must be on the CPU, got device "gpu": pass them as the reader gives them.'
        )
    if cfg.num_classes is None:
        raise ValueError("`num_classes` must be given in MixConfig to mix in a pipeline, got None.")
    pipeline = Pipeline.current()
    if pipeline is None:
        raise RuntimeError("mix() must be called inside a @pipeline_def function.")
    batch_size = pipeline.max_batch_size
    if batch_size < 2:
        raise ValueError(f"`batch_size` must be at least 2 for mixing, got {batch_size}.")
    if batch_size < _LITTLE_VARIETY:
        warnings.warn(
            f"Mixing in a batch of {batch_size}: pairing has little variety below "
            f"{_LITTLE_VARIETY}.",
            stacklevel=4,
        )
    return cfg.num_classes


def _mix_seed(seed: int | None) -> int:
    if seed is None:
        seed = Pipeline.current().seed
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"`seed` must be an int, got {seed!r}.")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")
    return sampling.op_seed(seed, "mix")
