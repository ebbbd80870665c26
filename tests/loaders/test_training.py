"""A network trained on mixed batches alone learns: images and labels belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dali_cutmix as dcm

pytestmark = pytest.mark.slow

EPOCHS = 15
PAIR_EPOCHS = 20
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


# Several labels, and classes of which there is little


@pytest.fixture(scope="module")
def pairs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two narrow digits side by side, 32 x 32, and a CSV with both: train/ and val/."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        (root / part).mkdir()
        files = sorted((digits / part).glob("*/*.jpg"))
        lines = ["file,digits"]
        for i, (a, b) in enumerate(
            rng.permutation(len(files))[: len(files) // 2 * 2].reshape(-1, 2)
        ):
            both = np.hstack([np.asarray(Image.open(files[k])) for k in (a, b)])
            Image.fromarray(both).save(root / part / f"{i}.png")
            lines.append(f"{i}.png,{files[a].parent.name}|{files[b].parent.name}")
        (root / f"{part}.csv").write_text("\n".join(lines))
    return root


def average_precision_of_pairs(pairs: Path, shift: int) -> float:
    """Trains on mixed rows of 0 and 1, moved on by `shift` samples; mean over the ten labels."""
    from sklearn.metrics import average_precision_score

    torch.manual_seed(0)
    options: dict[str, Any] = {"size": 16, "batch_size": 32, "device": "cpu"}
    mix = dcm.MixConfig(cutmix_alpha=1.0, mixup_alpha=0.2, prob=0.5)
    train = dcm.train_loader(
        pairs / "train",
        targets=pairs / "train.csv",
        mix=mix,
        hflip=0.0,
        area=(0.8, 1.0),
        ratio=(0.9, 1.1),
        seed=1,
        **options,
    )
    net = small_cnn()
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, PAIR_EPOCHS * len(train))
    loss_of = nn.BCEWithLogitsLoss()
    with train:
        for _ in range(PAIR_EPOCHS):
            for images, target in train:
                loss = loss_of(net(images), target.roll(shift, 0))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    net.eval()
    scores, rows = [], []
    val = dcm.val_loader(
        pairs / "val", targets=pairs / "val.csv", classes=train.classes, resize=16, **options
    )
    with torch.no_grad(), val:
        for images, target in val:
            scores.append(net(images))
            rows.append(target)
    return float(average_precision_score(torch.cat(rows), torch.cat(scores)))


def test_several_labels_are_learnt(pairs: Path) -> None:
    assert average_precision_of_pairs(pairs, shift=0) >= 0.85
    # Chance is the share of a label, 0.19.
    assert average_precision_of_pairs(pairs, shift=1) < 0.4


def recall_of_rare_digits(digits: Path, weights: Any, shift: int = 0) -> float:
    """Trains with 5 images of each odd digit and all of the even ones."""
    torch.manual_seed(0)
    samples: list[tuple[Path, int]] = []
    for digit in range(10):
        files = sorted((digits / "train" / str(digit)).glob("*.jpg"))
        samples += [(file, digit) for file in (files[:5] if digit % 2 else files)]
    options: dict[str, Any] = {"size": 16, "batch_size": 32, "device": "cpu", "num_classes": 10}
    source = dcm.find_source(samples, weights=weights)
    mix = dcm.MixConfig(prob=0.5)
    train = dcm.train_loader(source, mix=mix, hflip=0.0, area=(0.6, 1.0), seed=1, **options)
    net = small_cnn()
    steps = 400  # whatever the length of an epoch
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, steps)
    done = 0
    with train:
        while done < steps:
            for images, target in train:
                loss = dcm.losses.cross_entropy(net(images), target.roll(shift, 0))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                done += 1
                if done == steps:
                    break
                schedule.step()
    net.eval()
    hits = seen = 0
    with torch.no_grad(), dcm.val_loader(digits / "val", resize=16, **options) as val:
        for images, labels in val:
            rare = labels % 2 == 1
            hits += int((net(images).argmax(1) == labels)[rare].sum())
            seen += int(rare.sum())
    return hits / seen


def test_balanced_classes_help_the_rare_ones(digits: Path) -> None:
    plain, balanced = (recall_of_rare_digits(digits, weights) for weights in (None, "balanced"))
    assert balanced >= 0.75
    assert balanced >= plain + 0.05
    assert recall_of_rare_digits(digits, "balanced", shift=1) < 0.4
