"""`dali-cutmix show --annotations`: a picture of mixed images with the boxes of their objects."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dali_cutmix.cli import main as cli
from dali_cutmix.cli import shapes
from tests.support.rectangles import write_rectangles

SMALL = ["--device", "cpu", "--size", "96", "--batch-size", "16", "--images", "6"]
SMALL += ["--columns", "3"]


def test_boxes_are_drawn_where_the_report_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_rectangles(tmp_path, 32), tmp_path / "out.png"
    command = ["show", *SMALL, "--data", str(tmp_path), "--annotations", str(data.annotations)]
    assert cli.main([*command, "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape == (2 * 104 + 8, 3 * 104 + 8, 3)
    assert len(report["samples"]) == 6
    drawn = 0
    for k, sample in enumerate(report["samples"]):
        top, left = 8 + k // 3 * 104, 8 + k % 3 * 104
        cell = sheet[top : top + 96, left : left + 96]
        assert sample["image_id"] in data.images
        assert sample["lam"] == pytest.approx(1 - np.prod(sample["cut"][2:]) / 96**2, abs=1e-5)
        for (_, _, right, bottom), name in zip(sample["boxes"], sample["classes"], strict=True):
            assert name in {f"r{label}" for label in data.owner}
            corner = cell[min(round(bottom) - 1, 95), min(round(right) - 1, 95)]
            assert corner.max() == 255  # of a line: a bright colour
            drawn += 1
    assert drawn > 3


def test_shapes_are_shown_where_no_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    assert cli.main(["show", *SMALL, "--annotations", "--crop", "ssd", "--out", str(out)]) == 0
    assert "6 mixed images with" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["out.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--annotations", "a.json"], "`--data` must be the folder of the images of"),
        (["--annotations", "a.json", "--data", "."], "`annotations` must be a file, got"),
        (["--annotations", "--out", "mixed.psd"], "`--out` must end in .png, .jpg or another"),
        (["--annotations", "--images", "0"], "`--images` must be at least 1, got 0"),
        (["--annotations", "--batch-size", "1"], "`batch_size` must be at least 2 for mixing"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show", *SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_shapes_lie_in_their_boxes(tmp_path: Path) -> None:
    size = (90, 130)
    content: Any = json.loads(
        Path(shapes.write_shapes(tmp_path / "a", images=40, size=size)).read_text()
    )
    assert {c["name"] for c in content["categories"]} == {*shapes.CLASSES}
    without = 40 - len({one["image_id"] for one in content["annotations"]})
    assert 0 < without < 12
    colors = np.array(shapes._COLORS)
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        assert min(x, y) >= 0
        assert x + w <= 130
        assert y + h <= 90
        with Image.open(tmp_path / "a" / f"{one['image_id']:04d}.jpg") as image:
            middle = np.asarray(image)[y + h * 2 // 3, x + w // 2].astype(int)
        assert np.abs(colors - middle).max(1).min() < 40
    again = Path(shapes.write_shapes(tmp_path / "b", images=40, size=size))
    assert json.loads(again.read_text()) == content
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


def test_masks_are_those_of_the_shapes(tmp_path: Path) -> None:
    path = shapes.write_shapes(tmp_path / "a", masks=tmp_path / "masks", images=30, most=1)
    content = json.loads(Path(path).read_text())
    seen = set()
    for image in content["images"]:
        with Image.open(tmp_path / "masks" / f"{image['id']:04d}.png") as opened:
            mask = np.asarray(opened)
        assert mask.shape == (120, 160)
        own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        assert {*np.unique(mask)} == {0, *(one["category_id"] for one in own)}
        for one in own:
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            x, y, w, h = one["bbox"]
            assert (rows[0], rows[-1]) == (y, y + h - 1)
            assert (columns[0], columns[-1]) == (x, x + w - 1)
            seen.add(one["category_id"])
    assert seen == {1, 2, 3}


def test_solids_are_brighter_than_what_is_around(tmp_path: Path) -> None:
    images, masks = shapes.write_solids(tmp_path, volumes=6, shape=(20, 24, 30))
    assert [len(os.listdir(folder)) for folder in (images, masks)] == [6, 6]
    for name in os.listdir(images):
        volume, mask = (np.load(f"{folder}/{name}") for folder in (images, masks))
        assert (volume.dtype, mask.dtype) == (np.int16, np.uint8)
        assert volume.shape == mask.shape == (20, 24, 30)
        assert {0, 2} <= {*np.unique(mask)} <= {0, 1, 2}
        assert 90 < volume[mask > 0].mean() - volume[mask == 0].mean() < 150
