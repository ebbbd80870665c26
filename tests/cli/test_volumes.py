"""dali-cutmix volumes: what it finds, what it makes of NIfTI, and the picture."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli import main as cli
from dali_cutmix.cli.volumes import slices
from dali_cutmix.data.nifti import convert_nifti

SHAPE = (5, 6, 7)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, dtype in (("images", "float32"), ("masks", "uint8")):
        (tmp_path / part).mkdir()
        for k in range(6):
            np.save(tmp_path / part / f"{k}.npy", rng.integers(0, 3, SHAPE).astype(dtype))
    return tmp_path


def folders(data: Path) -> list[str]:
    return [str(data / "images"), str(data / "masks")]


def test_check_finds_what_is_wrong(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = ["volumes", "check", *folders(data), "--num-classes", "3"]
    assert cli.main(check) == 0
    out = capsys.readouterr().out
    assert "6 volumes of" in out
    assert "float32, 1 channel(s), masks uint8" in out
    assert "no problems" in out
    np.save(data / "masks/1.npy", np.full(SHAPE, 3, np.uint8))
    np.save(data / "masks/3.npy", np.zeros((5, 7, 6), np.uint8))
    np.save(data / "images/4.npy", np.full(SHAPE, np.inf, np.float32))
    (data / "images/5.npy").write_bytes(b"")
    assert cli.main(check) == 3
    out = capsys.readouterr().out
    for words in (
        "1 classes: is a mask with values that are no class",
        "masks/1.npy' must hold class indices in [0, 3), got 3 to 3",
        "masks/3.npy' must be of the shape of its volume, (5, 6, 7), got (5, 7, 6)",
        "images/4.npy' must be finite, 210 values are not",
        "images/5.npy' is no .npy file",
    ):
        assert words in out
    assert cli.main([*check, "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert [p["problem"] for p in report["problems"]] == ["classes", "shape", "values", "header"]
    assert cli.main(["volumes", "check", str(data), str(data / "none")]) == 1
    assert "`masks` must be a folder" in capsys.readouterr().err


def test_slices_are_in_the_middle_with_masks_over_them() -> None:
    volume, mask = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.int64)
    volume[2, 3, 3] = 5.0
    mask[2, 0, 6] = 1
    sheet = np.asarray(slices(volume[None, None], mask[None]))
    assert sheet.shape == (6 + 4, 7 + 7 + 6 + 12, 3)
    across_d, across_h, across_w = sheet[:6, :7], sheet[:5, 11:18], sheet[:5, 22:28]
    assert across_d[5 - 3, 3].tolist() == [255] * 3  # rows from bottom to top
    assert across_d[5, 6].tolist() == [161, 42, 42]
    assert across_h[4 - 2, 3].tolist() == across_w[4 - 2, 3].tolist() == [255] * 3
    assert (sheet > 0).any(-1).sum() == 4


def test_show_writes_a_picture(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data / "volumes.png"
    show = ["volumes", "show", *folders(data), "--size", "4", "6", "5", "--out", str(out)]
    assert cli.main(show) == 0
    assert "4 mixed volumes" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.size == (5 + 5 + 6 + 12, 4 * (6 + 4))
    assert cli.main([*show, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == str(out)
    assert cli.main([*show[:-1], "picture.txt"]) == 1
    assert "`--out` must end in .png" in capsys.readouterr().err


def test_volumes_are_made_where_none_are_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data / "volumes.png"
    show = ["volumes", "show", "--out", str(out), "--size", "20", "24", "30", "--batch-size", "3"]
    assert cli.main(show) == 0
    assert "3 mixed volumes" in capsys.readouterr().out
    with Image.open(out) as picture:
        shown = np.asarray(picture)
    assert shown.shape == (3 * (24 + 4), 30 + 30 + 24 + 12, 3)
    assert len({*map(tuple, shown.reshape(-1, 3).tolist())}) > 100
    for argv, words in (
        (folders(data)[:1], "`MASKS` must be given with the volumes"),
        (folders(data), "`--size` must be given with volumes"),
        (["--batch-size", "1"], "`batch_size` must be at least 2"),
    ):
        assert cli.main(["volumes", "show", *argv, "--out", str(out)]) == 1
        assert words in capsys.readouterr().err


# NIfTI


def write_nifti(path: Path, array: Any, *, flipped: bool = False, spacing: Any = (1, 2, 3)) -> None:
    """Writes (x, y, z) in RAS, or as a file whose x goes to the left and whose z comes first."""
    nibabel = pytest.importorskip("nibabel", reason="needs nibabel, which reads NIfTI")
    affine = np.diag([*spacing, 1.0])
    if flipped:
        array = array[::-1].transpose(2, 0, 1)
        affine = affine @ np.array([[0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def test_nifti_becomes_npy_in_one_orientation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-900, 900, (4, 5, 6)).astype(np.int16) for _ in range(4)]
    write_nifti(tmp_path / "nii/0.nii.gz", arrays[0])
    write_nifti(tmp_path / "nii/a/1.nii", arrays[1], flipped=True)
    write_nifti(tmp_path / "nii/2.nii.gz", np.stack(arrays[2:], 3))
    out = tmp_path / "out"
    made, there = convert_nifti(str(tmp_path / "nii"), str(out))
    assert (len(made), there) == (3, 0)
    channels = np.stack([array.T for array in arrays[2:]])
    for name, wanted in (("0", arrays[0].T), ("a/1", arrays[1].T), ("2", channels)):
        found = np.load(out / f"{name}.npy")
        assert found.dtype == np.int16
        assert found.flags.c_contiguous
        assert np.array_equal(found, wanted)
        about = json.loads((out / f"{name}.json").read_text())
        assert about["spacing"] == [3.0, 2.0, 1.0]
        assert about["orientation"] == "RAS"
        assert about["shape"] == list(wanted.shape)


def test_conversion_goes_on_and_renews_what_has_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source, out = tmp_path / "nii", tmp_path / "out"
    for k in range(3):
        write_nifti(source / f"{k}.nii.gz", rng.integers(0, 3, (4, 5, 6)).astype(np.int16))
    assert len(convert_nifti(str(source), str(out), masks=True)[0]) == 3
    assert convert_nifti(str(source), str(out), masks=True) == ([], 3)
    (out / "1.json").unlink()  # as after an interruption
    write_nifti(source / "2.nii.gz", np.ones((4, 5, 7), np.float64))
    made, there = convert_nifti(str(source), str(out), masks=True)
    assert ([os.path.basename(path) for path in made], there) == (["1.npy", "2.npy"], 1)
    assert np.load(out / "2.npy").shape == (7, 5, 4)
    assert np.load(out / "2.npy").dtype == np.uint8
    assert len(convert_nifti(str(source), str(out), masks=True, dtype="int32")[0]) == 3


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.full((4, 5, 6), 0.5), {"masks": True}, "must hold whole numbers to become uint8"),
        (np.full((4, 5, 6), 300.0), {"masks": True}, "must hold values of uint8, got 300.0 to 300"),
        (np.full((4, 5, 6), 40e3), {"dtype": "int16"}, "must hold values of int16, got 40000.0"),
        (np.zeros((4, 5, 6, 2)), {"masks": True}, r"must be of 3 axes, got shape \(4, 5, 6, 2\)"),
        (np.zeros((4, 5)), {}, "must be of 3 axes or 4, got shape"),
    ],
)
def test_files_that_cannot_be_converted_are_named(
    array: Any, options: Any, message: str, tmp_path: Path
) -> None:
    write_nifti(tmp_path / "nii/a.nii", array)
    with pytest.raises(ValueError, match=f"a.nii' cannot be converted: {message}"):
        convert_nifti(str(tmp_path / "nii"), str(tmp_path / "out"), **options)


def test_wrong_conversions_are_refused(tmp_path: Path) -> None:
    source, out = str(tmp_path / "nii"), str(tmp_path / "out")
    write_nifti(tmp_path / "nii/a.nii", np.zeros((4, 5, 6)))
    write_nifti(tmp_path / "nii/a.nii.gz", np.zeros((4, 5, 6)))
    with pytest.raises(ValueError, match=r"one file of a name, got 'a' as .nii and .nii.gz"):
        convert_nifti(source, out)
    (tmp_path / "nii/a.nii").write_bytes(b"nothing")
    (tmp_path / "nii/a.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"a.nii' cannot be converted"):
        convert_nifti(source, out)
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        convert_nifti(source, out, dtype="int32")
    with pytest.raises(FileNotFoundError, match="`source` must be a folder of NIfTI"):
        convert_nifti(str(tmp_path / "none"), out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"`source` must hold .nii or .nii.gz"):
        convert_nifti(str(tmp_path / "empty"), out)


def test_the_command_converts_for_the_loader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for k in range(4):
        array = rng.integers(0, 3, (8, 9, 10)).astype(np.int16)
        write_nifti(tmp_path / f"nii/{k}_image.nii.gz", array, flipped=k % 2 == 0)
        write_nifti(tmp_path / f"masks/{k}_label.nii.gz", array.astype(np.float64))
    for name, options in (("nii", []), ("masks", ["--masks"])):
        arguments = [str(tmp_path / name), str(tmp_path / "out" / name), *options]
        assert cli.main(["volumes", "convert", *arguments, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["made"]) == 4
        assert cli.main(["volumes", "convert", *arguments]) == 0
        assert "0 file(s) made" in capsys.readouterr().out
    with dcm.volume_loader(
        *(tmp_path / "out" / name for name in ("nii", "masks")),
        mask_names=("_image.npy", "_label.npy"),
        batch_size=1,
        size=None,
        training=False,
        device="cpu",
    ) as loader:
        assert loader.num_images == 4
        for images, masks in loader:
            assert images.shape == (1, 1, 10, 9, 8)
            assert bool((images[:, 0] == masks).all())


def test_without_nibabel_the_remedy_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert cli.main(["volumes", "convert", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "pip install 'dali-cutmix[nifti]'" in capsys.readouterr().err
