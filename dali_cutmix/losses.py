"""Losses and an accuracy for mixed targets, soft or pair.

Targets are what a loader yields: float rows (N, K), or ``(label_a, label_b, lam)`` of shape (N,)
each, or without mixing class indices (N,), so that one loss serves training and validation. A pair
needs no dense (N, K) matrix. Logits are (N, K); all is on one device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dali_cutmix._validation import checked_fraction

__all__ = ["binary_cross_entropy", "cross_entropy", "mixed_accuracy"]

Pair = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor | Pair, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Returns the mean cross entropy, (): of rows as torch has it, of pairs equal to their rows.

    Args:
        logits: float (N, K).
        targets: float (N, K), or (int64 (N,), int64 (N,), float (N,)), or int64 (N,).
        label_smoothing: epsilon in [0, 1]; leave it 0 where the targets are smoothed already.

    >>> import torch
    >>> logits, a, b = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0]), torch.tensor([2])
    >>> pair = cross_entropy(logits, (a, b, torch.tensor([0.75])))
    >>> torch.allclose(pair, cross_entropy(logits, torch.tensor([[0.75, 0.0, 0.25]])))
    True
    """
    targets = _without_indices(logits, targets)
    label_smoothing = checked_fraction("label_smoothing", label_smoothing)
    if isinstance(targets, torch.Tensor):
        _check_rows(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    label_a, label_b, lam = _checked_pair(logits, targets)
    log_p = F.log_softmax(logits, dim=1, dtype=torch.float32)
    # One gather for both labels: each has a backward pass over (N, K).
    at_both = log_p.gather(1, torch.stack((label_a, label_b), dim=1))
    loss = -(torch.stack((lam, 1 - lam), dim=1) * at_both).sum() / len(logits)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean()
    return loss


def binary_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor | Pair,
    *,
    label_smoothing: float = 0.0,
    target_threshold: float | None = None,
) -> torch.Tensor:
    """Returns the mean binary cross entropy over samples and classes, (), as timm 1.0.31 has it.

    Args:
        logits: float (N, K).
        targets: float (N, K), or (int64 (N,), int64 (N,), float (N,)), or int64 (N,).
        label_smoothing: epsilon in [0, 1] of the labels of pairs: off = epsilon / K,
            on = 1 - epsilon + epsilon / K; of class indices likewise. Rows come smoothed; for them
            it must be 0.
        target_threshold: what is above it counts as 1 and the rest as 0 ("ResNet strikes back").

    >>> import torch
    >>> logits, row = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[0.75, 0.0, 0.25]])
    >>> pair = torch.tensor([0]), torch.tensor([2]), torch.tensor([0.75])
    >>> torch.allclose(binary_cross_entropy(logits, pair), binary_cross_entropy(logits, row))
    True
    """
    targets = _without_indices(logits, targets)
    label_smoothing = checked_fraction("label_smoothing", label_smoothing)
    if target_threshold is not None:
        target_threshold = checked_fraction("target_threshold", target_threshold)
    if isinstance(targets, torch.Tensor):
        _check_rows(logits, targets)
        if label_smoothing:
            raise ValueError(
                f"`label_smoothing` must be 0 for rows of targets, got {label_smoothing}: smooth "
                "them before they are mixed (MixConfig has `label_smoothing`)."
            )
        if target_threshold is not None:
            targets = (targets > target_threshold).to(targets.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets)

    label_a, label_b, lam = _checked_pair(logits, targets)
    logits = logits.float()  # sums over the classes would overflow in half precision
    off = label_smoothing / logits.shape[1]
    share_a = torch.where(label_a == label_b, torch.ones_like(lam), lam)
    # What the rows hold at the two labels, above `off`; equal labels count once, as `label_a`.
    over_a = (1 - label_smoothing) * share_a
    over_b = (1 - label_smoothing) * (1 - share_a)
    if target_threshold is not None:
        hot = off > target_threshold  # then every class is
        over_a = ((off + over_a > target_threshold) & (not hot)).to(logits.dtype)
        over_b = ((off + over_b > target_threshold) & (not hot)).to(logits.dtype)
        off = float(hot)
    # -t log s(x) - (1 - t) log s(-x) = softplus(x) - t x
    loss = F.softplus(logits).sum(dim=1)
    loss = loss - over_a * _at(logits, label_a) - over_b * _at(logits, label_b)
    if off:
        loss = loss - off * logits.sum(dim=1)
    return loss.mean() / logits.shape[1]


def mixed_accuracy(logits: torch.Tensor, targets: torch.Tensor | Pair) -> torch.Tensor:
    """Returns the mean share of the target that the predicted class has, (), in [0, 1].

    A sample counts as far as its prediction shows: predicting the class with a share of 0.7 earns
    0.7. Without mixing and smoothing it is the top-1 accuracy; else its ceiling is the mean of
    the largest shares.

    >>> import torch
    >>> row = torch.tensor([[0.7, 0.3], [1.0, 0.0]])
    >>> mixed_accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), row).item()
    0.3499999940395355
    """
    targets = _without_indices(logits, targets)
    predicted = logits.argmax(dim=1)
    if isinstance(targets, torch.Tensor):
        _check_rows(logits, targets)
        return _at(targets, predicted).mean()
    label_a, label_b, lam = _checked_pair(logits, targets)
    return (lam * (predicted == label_a) + (1 - lam) * (predicted == label_b)).mean()


def _at(rows: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    return rows.gather(1, column[:, None]).squeeze(1)


def _without_indices(logits: torch.Tensor, targets: torch.Tensor | Pair) -> torch.Tensor | Pair:
    """Returns class indices as pairs that are not mixed, and other targets as they are."""
    _check_logits(logits)
    if isinstance(targets, torch.Tensor) and targets.dtype == torch.int64 and targets.dim() == 1:
        return targets, targets, torch.ones(len(targets), device=targets.device)
    return targets


def _check_logits(logits: torch.Tensor) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"`logits` must be a tensor, got {type(logits).__name__}.")
    if logits.dim() != 2 or not logits.is_floating_point() or not logits.numel():
        raise ValueError(
            "`logits` must be float (N, K), N and K at least 1, "
            f"got {logits.dtype} of shape {tuple(logits.shape)}."
        )


def _check_rows(logits: torch.Tensor, targets: torch.Tensor) -> None:
    if logits.dim() != 2 or targets.shape != logits.shape or not targets.is_floating_point():
        raise ValueError(
            f"`targets` must be float rows of shape {tuple(logits.shape)}, class indices, int64 of "
            f"shape {tuple(logits.shape[:1])}, or (label_a, label_b, lam), got {targets.dtype} of "
            f"shape {tuple(targets.shape)}."
        )


def _checked_pair(logits: torch.Tensor, targets: Pair) -> Pair:
    if (
        not isinstance(targets, (tuple, list))
        or len(targets) != 3
        or not all(isinstance(part, torch.Tensor) for part in targets)
    ):
        raise TypeError(
            f"`targets` must be rows or (label_a, label_b, lam), got {type(targets).__name__}."
        )
    label_a, label_b, lam = targets
    for part in targets:
        if logits.dim() != 2 or part.shape != logits.shape[:1]:
            raise ValueError(
                f"`targets` must be three tensors of shape {tuple(logits.shape[:1])}, "
                f"got one of shape {tuple(part.shape)}."
            )
    if label_a.dtype != torch.int64 or label_b.dtype != torch.int64 or not lam.is_floating_point():
        raise TypeError(
            "`targets` must be (int64, int64, float), got "
            f"({label_a.dtype}, {label_b.dtype}, {lam.dtype})."
        )
    return label_a, label_b, lam
