"""`dali-cutmix show --masks`: a picture of mixed images with their masks over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dali_cutmix.cli import main as cli
from dali_cutmix.cli.masks import COLORS, mixed_masks, overlaid
from dali_cutmix.mixing.config import MixConfig

SMALL = ["--device", "cpu", "--size", "32", "--images", "6", "--columns", "3"]


def test_the_picture_shows_the_classes_of_the_pixels(
    photos: str, photo_masks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks.png"
    command = ["show", *SMALL, "--data", photos, "--masks", photo_masks, "--out", str(out)]
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [set(one) <= {0, 1} for one in report["classes"]] == [True] * 6
    options = {"batch_size": 32, "size": 32, "device": "cpu", "seed": 0}
    samples = mixed_masks(photos, photo_masks, MixConfig(), 6, **options)
    with Image.open(out) as picture:
        shown = np.asarray(picture)
    assert shown.shape == (2 * 40 + 8, 3 * 40 + 8, 3)
    for i, (pixels, mask) in enumerate(samples):
        top, left = i // 3 * 40 + 8, i % 3 * 40 + 8
        assert np.array_equal(shown[top : top + 32, left : left + 32], overlaid(pixels, mask))
    assert cli.main(command) == 0
    assert "6 mixed images and their masks" in capsys.readouterr().out


def test_a_class_has_a_colour_and_none_is_background() -> None:
    mask = np.array([[0, 1], [2, 6]])
    shown = overlaid(np.full((2, 2, 3), 100, np.uint8), mask)
    assert shown[0, 0].tolist() == [100, 100, 100]
    assert np.array_equal(shown[0, 1], shown[1, 1])  # there are five colours
    assert np.array_equal(shown[1, 0], (30 + 0.7 * COLORS[1]).round())


def test_masks_of_shapes_are_shown_where_no_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["show", *SMALL, "--masks", "--out", str(tmp_path / "out.png"), "--json"]
    assert cli.main(command) == 0
    shown = json.loads(capsys.readouterr().out)["classes"]
    assert {value for one in shown for value in one} == {0, 1, 2, 3}


def test_masks_without_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--masks", "x"]) == 1
    assert "`--data` must be the folder of the images of `--masks`" in capsys.readouterr().err
