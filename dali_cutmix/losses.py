"""Losses and an accuracy for mixed targets, soft or pair.

Targets are what a loader yields: float rows (N, K), or ``(label_a, label_b, lam)`` of shape (N,)
each, or without mixing class indices (N,), so that one loss serves training and validation. Rows
sum to 1, but for those of SnapMix, whose weights need not: `cross_entropy` weighs such a sample by
their sum, as the authors do. A pair needs no dense (N, K) matrix. Logits are (N, K); all is on one
device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dali_cutmix._validation import checked_fraction, checked_size

__all__ = ["attention_lam", "binary_cross_entropy", "cross_entropy", "mixed_accuracy"]

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


def attention_lam(
    attention: torch.Tensor,
    box: torch.Tensor,
    size: tuple[int, int],
    *,
    grid: tuple[int, int] | None = None,
    ratio: float = 0.5,
) -> torch.Tensor:
    """Returns lam by what a vision transformer attends to in the mixed image, (N,): TransMix.

    The share of the partner is half what the box takes of the area, and half what it takes of the
    attention of the class token (Chen et al. 2022, "TransMix: Attend to Mix for Vision
    Transformers", and the authors' code). It is known after the forward pass, so take targets as
    pairs, and put it in the place of their lam. With CutMix, or other methods of one box: where
    images were blended the box is empty, and lam would be 1.

    Args:
        attention: float (N, T), of the class token to the T patches in rows, at least 0, in the
            mean over the heads, of the last block; its sum does not matter.
        box: integers (N, 4), ``(y, x, h, w)`` in pixels: ``params.box`` of `mix`, or what a loader
            yields ``with_params=True``.
        size: (H, W) of the images.
        grid: rows and columns of patches; by default as many of both.
        ratio: share of the area, in [0, 1]; the rest is that of the attention. The authors have
            0.5. With 1 it is lam by the area.

    A patch is covered where its first pixel is, as the authors' code has it. No gradient flows
    through what is returned.

    >>> import torch
    >>> attention, box = torch.tensor([[0.7, 0.1, 0.1, 0.1]]), torch.tensor([[0, 0, 16, 16]])
    >>> attention_lam(attention, box, (32, 32)).item()  # 1 - (0.5 * 0.25 + 0.5 * 0.7)
    0.5249999761581421
    """
    ratio = checked_fraction("ratio", ratio)
    rows, columns = _checked_grid(attention, box, size, grid)
    attention, box = attention.detach().float(), box.to(attention.device)
    start, sides = box[:, :2], box[:, 2:]
    inside = [
        (at[None] >= start[:, k, None]) & (at[None] < (start + sides)[:, k, None])
        for k, count in enumerate((rows, columns))
        for at in [torch.arange(count, device=box.device) * size[k] // count]
    ]
    covered = (inside[0][:, :, None] & inside[1][:, None]).flatten(1)
    attended = (attention * covered).sum(dim=1) / attention.sum(dim=1)
    area = sides.prod(dim=1).float() / (size[0] * size[1])
    return 1 - (ratio * area + (1 - ratio) * attended)


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


def _checked_grid(
    attention: torch.Tensor,
    box: torch.Tensor,
    size: tuple[int, int],
    grid: tuple[int, int] | None,
) -> tuple[int, int]:
    """Returns the rows and columns of patches."""
    for name, value in (("attention", attention), ("box", box)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"`{name}` must be a tensor, got {type(value).__name__}.")
    if attention.dim() != 2 or not attention.is_floating_point() or not attention.numel():
        raise ValueError(
            "`attention` must be float (N, T), of the class token to the patches, in the mean over "
            f"the heads, got {attention.dtype} of shape {tuple(attention.shape)}."
        )
    if box.shape != (len(attention), 4) or box.is_floating_point():
        raise ValueError(
            f"`box` must be integers ({len(attention)}, 4), got {box.dtype} of shape "
            f"{tuple(box.shape)}."
        )
    checked_size(size)
    patches = attention.shape[1]
    if grid is None:
        grid = (math.isqrt(patches),) * 2
    if not isinstance(grid, tuple) or len(grid) != 2 or grid[0] * grid[1] != patches:
        raise ValueError(
            f"`grid` must be rows and columns of the {patches} patches in `attention`, got {grid}. "
            "(Leave out what the class token attends to in itself.)"
        )
    return grid


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
