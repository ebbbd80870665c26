"""Labels: those of a sample and its partner, and lam, become the target."""

from __future__ import annotations

from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

__all__ = ["pair_targets", "soft_targets"]


def soft_targets(
    label_a: DataNode,
    label_b: DataNode,
    lam: DataNode,
    *,
    num_classes: int,
    label_smoothing: float = 0.0,
    labels: str = "int",
) -> DataNode:
    """Returns lam * a + (1 - lam) * b, float32 (num_classes,), on the labels' device.

    Equal classes add up to one entry. Smoothing is that of Szegedy et al. 2016, applied to both
    labels before mixing: off = eps / K, on = 1 - eps + eps / K.

    Args:
        label_a, label_b: int () or float rows (num_classes,), as `labels` says.
        lam: float32 (), weight of `label_a`, on the same device.
    """
    if labels == "float":
        return lam * _float_row(label_a) + (1.0 - lam) * _float_row(label_b)
    off = label_smoothing / num_classes
    levels = {"on_value": 1.0 - label_smoothing + off, "off_value": off}
    row_a = fn.one_hot(label_a, num_classes=num_classes, **levels)
    row_b = fn.one_hot(label_b, num_classes=num_classes, **levels)
    return lam * row_a + (1.0 - lam) * row_b


def pair_targets(
    label_a: DataNode, label_b: DataNode, lam: DataNode
) -> tuple[DataNode, DataNode, DataNode]:
    """Returns (label_a, label_b, lam) as int64 (), int64 (), float32 (), for torch's losses."""
    return _int64_scalar(label_a), _int64_scalar(label_b), lam


def _int64_scalar(label: DataNode) -> DataNode:
    return fn.cast(fn.reshape(label, shape=[]), dtype=types.INT64)


def _float_row(label: DataNode) -> DataNode:
    return fn.cast(label, dtype=types.FLOAT)
