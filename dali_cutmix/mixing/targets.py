"""Labels: those of a sample and its partner, and lam, become the target."""

from __future__ import annotations

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

__all__ = ["both_of", "pair_targets", "soft_targets"]


def both_of(labels: DataNode, original: DataNode, partner: DataNode) -> DataNode:
    """Returns label `original` and label `partner` of the batch, int32 (2,).

    One operator for two fn.permute_batch and their concatenation: labels are images of one pixel.

    Args:
        labels: int32 (1,), on the CPU.
        original, partner: int32 (), indices in the batch.
    """
    places = types.Constant(np.array([(0, 0), (1, 0)], np.int32))
    both = fn.multi_paste(
        fn.reshape(labels, shape=[1, 1, 1]),
        in_ids=fn.stack(original, partner),
        out_anchors=places,
        output_size=[2, 1],
    )
    return fn.reshape(both, shape=[2])


def soft_targets(
    labels: DataNode,
    lam: DataNode,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    kind: str = "int",
) -> DataNode:
    """Returns lam * a + (1 - lam) * b, float32 (num_classes,), on the labels' device.

    Equal classes add up to one entry. Smoothing is that of Szegedy et al. 2016, applied to both
    labels before mixing: off = eps / K, on = 1 - eps + eps / K.

    Args:
        labels: both labels, a and b, of each sample: int (2,), or for ``kind="float"`` their rows
            as columns, (num_classes, 2).
        lam: float32 (), weight of a, on the CPU.
    """
    if kind == "float":
        columns = fn.cast(labels, dtype=types.FLOAT)
    else:
        off = label_smoothing / num_classes
        levels = {"on_value": 1.0 - label_smoothing + off, "off_value": off}
        columns = fn.one_hot(labels, num_classes=num_classes, axis=0, **levels)
    # To scale by lam around 1 is x -> lam * x + (1 - lam): the two weights, without arithmetic.
    weights = fn.transforms.scale(scale=fn.reshape(lam, shape=[1]), center=[1.0])
    return fn.reshape(fn.coord_transform(columns, M=weights), shape=[num_classes])


def pair_targets(
    label_a: DataNode, label_b: DataNode, lam: DataNode
) -> tuple[DataNode, DataNode, DataNode]:
    """Returns (label_a, label_b, lam) as int64 (), int64 (), float32 (), for torch's losses."""
    return _int64_scalar(label_a), _int64_scalar(label_b), lam


def _int64_scalar(label: DataNode) -> DataNode:
    return fn.cast(fn.reshape(label, shape=[]), dtype=types.INT64)
