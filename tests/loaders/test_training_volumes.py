"""The example's U-Net learns from mixed volumes, as long as volumes and masks belong together."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import dali_cutmix as dcm

pytestmark = pytest.mark.slow

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "train_volumes.py"))
STEPS = 60


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    EXAMPLE["make_synthetic"](root, train=16, val=4)
    return root


def dice_after_training(root: Path, shift: int) -> float:
    """Trains on crops that CutMix has all mixed, the masks moved on by `shift` samples.

    Returns the Dice of foreground (ball and cube as one class) of whole volumes.
    """
    torch.manual_seed(0)
    model = EXAMPLE["UNet"](classes=2, width=6)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    common: dict[str, Any] = {"window": (-200, 300), "device": "cpu"}
    train = dcm.volume_loader(
        *(root / "train" / part for part in ("images", "masks")),
        batch_size=4,
        size=(16, 24, 24),
        mix=dcm.MixConfig(partner="derangement"),
        foreground=0.33,
        seed=1,
        **common,
    )
    with train:
        for _ in range(STEPS // len(train)):
            for volumes, masks in train:
                wanted = (masks > 0).long().roll(shift, 0)
                loss = EXAMPLE["cross_entropy_and_dice"](model(volumes), wanted)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    val = dcm.volume_loader(
        *(root / "val" / part for part in ("images", "masks")),
        batch_size=1,
        size=None,
        training=False,
        **common,
    )
    both = sums = 0
    model.eval()
    with val, torch.no_grad():
        for volumes, masks in val:
            found, there = model(volumes).argmax(1) > 0, masks > 0
            both += int((found & there).sum())
            sums += int(found.sum() + there.sum())
    return 2 * both / sums


def test_volumes_are_learnt_from_mixed_batches_alone(synthetic: Path) -> None:
    assert dice_after_training(synthetic, shift=0) >= 0.75


def test_volumes_are_not_learnt_from_the_masks_of_the_next_sample(synthetic: Path) -> None:
    # The check above can fail.
    assert dice_after_training(synthetic, shift=1) < 0.4
