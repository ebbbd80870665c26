"""Labels obey the plan: soft targets by lam, or pairs of class indices."""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix.mixing.plan import MixParams

__all__ = ["class_indices", "gather_pair", "mix_labels", "pair_targets", "soft_targets"]


def mix_labels(
    labels: DataNode,
    params: MixParams,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    labels_are: str = "int",
    targets: str = "soft",
    device: str = "cpu",
    partners: DataNode | None = None,
) -> DataNode | tuple[DataNode, DataNode, DataNode]:
    """Returns the targets on `device`, see `MixConfig`.

    Args:
        labels: on the CPU: int32 (1,), or for ``labels_are="float"`` rows, float32 (num_classes,).
        partners: those of a second batch, else None.
    """

    def to_device(x: DataNode) -> DataNode:
        return x.gpu() if device == "gpu" else x

    if targets == "soft" and labels_are == "int" and params.original is not None:
        assert params.partner is not None
        both = gather_pair(labels, params.original, params.partner, params.others)
    else:
        own = labels
        if params.original is not None:
            own = fn.permute_batch(labels, indices=params.original)
        if partners is None:
            partners = fn.permute_batch(labels, indices=params.partner)
        if targets == "pair":
            return pair_targets(*(to_device(x) for x in (own, partners, params.lam)))
        all_of_them = [own, partners]
        if params.others is not None:
            all_of_them += [fn.permute_batch(labels, indices=params.others[k]) for k in range(2)]
        both = fn.cat(*all_of_them) if labels_are == "int" else fn.stack(*all_of_them, axis=1)
    assert params.weights is not None
    weights = params.weights
    if params.source is not None and labels_are == "int":
        # Both labels of SnapMix have the weights of both where they are equal.
        twice = (params.source[2] > 0) & (both[0] == both[1])
        weights = weights * (1 + fn.cast(twice, dtype=types.INT32))
    return soft_targets(
        to_device(both),
        weights,
        num_classes=num_classes,
        label_smoothing=label_smoothing,
        labels_are=labels_are,
    )


def gather_pair(
    labels: DataNode, original: DataNode, partner: DataNode, others: DataNode | None = None
) -> DataNode:
    """Returns label `original` and label `partner` of the batch, int32 (2,); (4,) with `others`.

    One operator for two fn.permute_batch and their concatenation: labels are images of one pixel.

    Args:
        labels: int32 (1,), on the CPU.
        original, partner: int32 (), indices in the batch.
        others: int32 (2,), two more.
    """
    ids, count = fn.stack(original, partner), 2
    if others is not None:
        ids, count = fn.cat(ids, others), 4
    anchors = types.Constant(np.array([(i, 0) for i in range(count)], np.int32))
    both = fn.multi_paste(
        fn.reshape(labels, shape=[1, 1, 1]),
        in_ids=ids,
        out_anchors=anchors,
        output_size=[count, 1],
    )
    return fn.reshape(both, shape=[count])


def soft_targets(
    labels: DataNode,
    weights: DataNode,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    labels_are: str = "int",
) -> DataNode:
    """Returns the labels by their weights, float32 (num_classes,), on the labels' device.

    Equal classes add up to one entry. Smoothing is that of Szegedy et al. 2016, applied to both
    labels before mixing: off = eps / K, on = 1 - eps + eps / K.

    Args:
        labels: both labels, a and b, of each sample: int (2,), or for ``labels_are="float"`` their
            rows as columns, (num_classes, 2). Where four images may meet, all four.
        weights: of a and b, float32 (1, 2), on the CPU, lam and 1 - lam, but for SnapMix; of four
            (1, 4).
    """
    if labels_are == "float":
        columns = fn.cast(labels, dtype=types.FLOAT)
    else:
        off = label_smoothing / num_classes
        on = 1.0 - label_smoothing + off
        columns = fn.one_hot(labels, num_classes=num_classes, axis=0, on_value=on, off_value=off)
    return fn.reshape(fn.coord_transform(columns, M=weights), shape=[num_classes])


def pair_targets(
    label_a: DataNode, label_b: DataNode, lam: DataNode
) -> tuple[DataNode, DataNode, DataNode]:
    """Returns (label_a, label_b, lam) as int64 (), int64 (), float32 (), for torch's losses."""
    return class_indices(label_a), class_indices(label_b), lam


def class_indices(labels: DataNode) -> DataNode:
    """Returns labels as int64 ()."""
    return fn.cast(fn.reshape(labels, shape=[]), dtype=types.INT64)
