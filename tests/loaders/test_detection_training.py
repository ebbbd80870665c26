"""A small detector learns from mixed batches alone, and from boxes of another image it does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dali_cutmix as dcm
from dali_cutmix.cli.shapes import CLASSES, write_shapes
from tests.support.detector import mean_average_precision, trained

pytestmark = pytest.mark.slow

STEPS = 240  # of 16 images: eight epochs; some 20 s on two cores


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    root = tmp_path_factory.mktemp("shapes")
    parts = {"train": 480, "val": 100}
    return [
        (root / name, write_shapes(root / name, images=count, seed=count))
        for name, count in parts.items()
    ]


def precision_after(folders: list[tuple[Path, str]], shift: int = 0, **options: Any) -> float:
    """mAP at an IoU of 0.5 on images that were not trained on, unmixed."""
    common: dict[str, Any] = {"size": (96, 128), "device": "cpu"}
    training, validation = folders
    with dcm.detection_loader(*training, batch_size=16, seed=1, **options, **common) as train:

        def batches() -> Iterator[Any]:
            for images, targets in itertools.chain.from_iterable(itertools.repeat(train)):
                yield images, targets[shift:] + targets[:shift]

        model = trained(batches(), STEPS, len(CLASSES))
    found, truth = [], []
    with dcm.detection_loader(*validation, batch_size=50, training=False, **common) as val:
        assert val.classes == train.classes
        for images, targets in val:
            found += model.detect(images)
            truth += [(t["boxes"].numpy(), t["labels"].numpy()) for t in targets]
    return mean_average_precision(found, truth, len(CLASSES))


MIX = {"mix": dcm.MixConfig()}


# Crops are distorted, which takes longer: 0.99 and 0.69 were seen.
@pytest.mark.parametrize(("crop", "least"), [("resize", 0.9), ("ssd", 0.5)])
def test_a_detector_learns_from_mixed_images_alone(
    folders: list[tuple[Path, str]], crop: Any, least: float
) -> None:
    assert precision_after(folders, crop=crop, **MIX) > least


def test_a_detector_does_not_learn_from_boxes_of_the_next_sample(
    folders: list[tuple[Path, str]],
) -> None:
    assert precision_after(folders, shift=1, **MIX) < 0.2


def test_the_precision_is_right_by_hand() -> None:
    one = np.array([[0, 0, 10, 10]], np.float32)
    two = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    label, labels = np.array([1]), np.array([1, 1])
    truth = [(two, labels)]
    assert mean_average_precision([(one, label, np.array([0.9]))], truth, 1) == 0.5
    assert mean_average_precision([(two, labels, np.array([0.9, 0.8]))], truth, 1) == 1.0
    # A false one before the second true one: precision 1, 1/2, 2/3.
    rows = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], np.float32)
    found = [(rows, np.array([1, 1, 1]), np.array([0.9, 0.8, 0.7]))]
    assert mean_average_precision(found, truth, 1) == pytest.approx((1 + 2 / 3) / 2)
    # The same object found twice counts once.
    twice = [(np.concatenate([one, one]), labels, np.array([0.9, 0.8]))]
    assert mean_average_precision(twice, truth, 1) == 0.5
