"""A detector of centres, small enough to be trained in a test, and its mean average precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Detector", "mean_average_precision", "trained"]

STRIDE = 4
Array = NDArray[Any]


def block(channels: int, out: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    conv = nn.Conv2d(channels, out, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


class Detector(nn.Module):
    """Where centres of objects are, of each class, and how far their sides (CenterNet, FCOS)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.body = nn.Sequential(
            *(block(3, 16, 2), block(16, 32, 2), block(32, 32), block(32, 48, 1, 2)),
            *(block(48, 48, 1, 4), block(48, 48, 1, 6), block(48, 48)),
        )
        self.head = nn.Conv2d(48, classes + 4, 1)
        nn.init.constant_(self.head.bias[:classes], -4.0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores before the sigmoid (N, K, h, w) and distances in strides (N, 4, h, w)."""
        out = self.head(self.body(images))
        return out[:, : self.classes], F.softplus(out[:, self.classes :] + 2)

    def loss(self, images: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
        scores, sides = self(images)
        heat = torch.zeros_like(scores)
        found: list[Tensor] = []
        height, width = scores.shape[2:]
        ys, xs = (torch.arange(n) + 0.5 for n in (height, width))
        for k, target in enumerate(targets):
            for box, label in zip(target["boxes"] / STRIDE, target["labels"], strict=True):
                x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                spread = ((box[2] - box[0]) * (box[3] - box[1])).sqrt() / 6 + 0.3
                bump = torch.exp(-((ys - y)[:, None] ** 2 + (xs - x) ** 2) / (2 * spread**2))
                i, j = min(int(y), height - 1), min(int(x), width - 1)
                bump[i, j] = 1.0
                plane = heat[k, int(label) - 1]
                torch.maximum(plane, bump, out=plane)
                here = torch.stack([xs[j] - box[0], ys[i] - box[1], box[2] - xs[j], box[3] - ys[i]])
                found.append((sides[k, :, i, j] - here.clamp(min=0)).abs().mean())
        p = scores.sigmoid().clamp(1e-4, 1 - 1e-4)
        hit = heat == 1
        focal = torch.where(
            hit, (1 - p) ** 2 * -p.log(), (1 - heat) ** 4 * p**2 * -(1 - p).log()
        ).sum() / hit.sum().clamp(min=1)
        return focal + 0.3 * torch.stack(found).mean() if found else focal

    @torch.no_grad()
    def detect(self, images: Tensor, most: int = 20) -> list[tuple[Array, Array, Array]]:
        """Returns boxes (n, 4), labels (n,) and scores (n,) of each image."""
        scores, sides = self(images)
        p = scores.sigmoid()
        p = p * (F.max_pool2d(p, 5, 1, 2) == p)
        width = p.shape[3]
        best, where = p.flatten(1).topk(most)
        found = []
        for k in range(len(images)):
            label, place = where[k] // p[0, 0].numel(), where[k] % p[0, 0].numel()
            y, x = place // width, place % width
            left, top, right, bottom = sides[k][:, y, x]
            xs, ys = x + 0.5, y + 0.5
            boxes = torch.stack([xs - left, ys - top, xs + right, ys + bottom], 1) * STRIDE
            found.append((boxes.numpy(), (label + 1).numpy(), best[k].numpy()))
        return found


def trained(batches: Iterable[Any], steps: int, classes: int, seed: int = 0) -> Detector:
    """A detector after so many steps."""
    torch.manual_seed(seed)
    model = Detector(classes).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step, (images, targets) in enumerate(batches):
        if step == steps:
            break
        optimizer.zero_grad()
        model.loss(images, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def mean_average_precision(
    found: list[tuple[Array, Array, Array]], truth: list[tuple[Array, Array]], classes: int
) -> float:
    """mAP at an IoU of 0.5: the area under precision over recall, made monotone, of each class."""
    values = []
    for label in range(1, classes + 1):
        rows: list[tuple[float, bool]] = []
        there = sum(int((labels == label).sum()) for _, labels in truth)
        for (boxes, labels, scores), (true, names) in zip(found, truth, strict=True):
            own, free = true[names == label], np.ones((names == label).sum(), bool)
            for k in np.flatnonzero(labels == label)[np.argsort(-scores[labels == label])]:
                overlap = iou(boxes[k], own)
                best = int(overlap.argmax()) if len(own) else -1
                hit = best >= 0 and bool(overlap[best] >= 0.5) and bool(free[best])
                if hit:
                    free[best] = False
                rows.append((float(scores[k]), hit))
        hits = np.array([hit for _, hit in sorted(rows, key=lambda row: -row[0])], float).cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        values.append(float(np.diff(hits, prepend=0) @ precision) / there)
    return float(np.mean(values))


def iou(box: Array, others: Array) -> Array:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inside = np.clip(high - low, 0, None).prod(1)
    area = (box[2:] - box[:2]).prod()
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return np.asarray(inside / (area + areas - inside))
