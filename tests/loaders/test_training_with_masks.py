"""A network trained on mixed images and masks finds shapes; the example resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dali_cutmix as dcm
from examples.train_segmentation import UNet, mean_dice
from tests.support.forked import finished
from tests.support.shapes import shapes_and_masks
from tests.test_examples import equal

pytestmark = pytest.mark.slow

EPOCHS = 8


@pytest.fixture(scope="module")
def shapes(photos: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/, each with images/ and masks/."""
    root = tmp_path_factory.mktemp("shapes")
    shapes_and_masks(photos, root / "train", 128, seed=0)
    shapes_and_masks(photos, root / "val", 40, seed=1)
    return root


def dice_after_training(shapes: Path, shift: int) -> float:
    """Trains on images mixed by CutMix, their masks moved on by `shift` samples."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"batch_size": 16, "size": 48, "device": "cpu", "num_classes": 3}
    part = shapes / "train"
    mix = dcm.MixConfig(prob=0.5)
    train = dcm.segmentation_loader(part / "images", part / "masks", mix=mix, seed=1, **options)
    model = UNet(3, widths=(8, 16, 32))
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, EPOCHS * len(train))
    with train:
        for _ in range(EPOCHS):
            for images, masks in train:
                loss = nn.functional.cross_entropy(model(images), masks.roll(shift, 0))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    part = shapes / "val"
    options["training"] = False
    with dcm.segmentation_loader(part / "images", part / "masks", **options) as val:
        return mean_dice(model, val, 3)


def test_shapes_are_found_after_training_on_mixed_images(shapes: Path) -> None:
    assert dice_after_training(shapes, shift=0) >= 0.8


def test_shapes_are_not_found_with_the_masks_of_the_next_sample(shapes: Path) -> None:
    # The check above can fail.
    assert dice_after_training(shapes, shift=1) < 0.5


def test_the_example_goes_on_where_it_was_stopped(shapes: Path, tmp_path: Path) -> None:
    def run(out: Path, *more: str) -> dict[str, Any]:
        data: list[str] = []
        for prefix, part in (("--", "train"), ("--val-", "val")):
            for kind in ("images", "masks"):
                data += [f"{prefix}{kind}", str(shapes / part / kind)]
        script = ["examples/train_segmentation.py"]
        size = ["--num-classes", "3", "--size", "16", "--epochs", "2", "--device", "cpu"]
        finished([*script, *data, *size, "--out", str(out), *more])
        return dict(torch.load(out / "last.pt", weights_only=True))

    whole = run(tmp_path / "whole")
    for stop in ("3", "8", "13"):  # of 16 steps
        assert not equal(run(tmp_path / "parts", "--stop-after", stop), whole)
    assert equal(run(tmp_path / "parts"), whole)
