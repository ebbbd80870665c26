"""A network trained on mixed batches alone learns: images and labels belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dali_cutmix as dcm

pytestmark = pytest.mark.slow

EPOCHS = 15
HELD_OUT = 360


def small_cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if 32 <= outputs and inputs < 64 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def accuracy_after_training(digits: Path, shift: int, targets: Any = "soft") -> float:
    """Trains on CutMix and MixUp batches alone, the targets moved on by `shift` samples."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"size": 16, "batch_size": 64, "device": "cpu"}
    mix = dcm.MixConfig(cutmix_alpha=1.0, mixup_alpha=0.2, targets=targets)
    train = dcm.train_loader(
        digits / "train", mix=mix, hflip=0.0, area=(0.6, 1.0), seed=1, **options
    )
    net = small_cnn()
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, EPOCHS * len(train))
    with train:
        for _ in range(EPOCHS):
            for images, target in train:
                rows = target if isinstance(target, tuple) else (target,)
                rows = tuple(part.roll(shift, 0) for part in rows)
                loss = dcm.losses.cross_entropy(net(images), rows if len(rows) > 1 else rows[0])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    net.eval()
    hits = seen = 0
    with torch.no_grad(), dcm.val_loader(digits / "val", resize=16, **options) as val:
        for images, labels in val:
            hits += int((net(images).argmax(1) == labels).sum())
            seen += len(labels)
    assert seen == HELD_OUT
    return hits / seen


@pytest.mark.parametrize("targets", ["soft", "pair"])
def test_digits_are_learnt_from_mixed_batches_alone(digits: Path, targets: Any) -> None:
    assert accuracy_after_training(digits, shift=0, targets=targets) >= 0.95


def test_digits_are_not_learnt_from_the_targets_of_the_next_sample(digits: Path) -> None:
    # The check above can fail: chance is 0.1.
    assert accuracy_after_training(digits, shift=1) < 0.5
