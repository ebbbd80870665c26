"""COCO's annotations: what is read of them, and what is wrong with them, in words that name it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli import main as cli
from dali_cutmix.data import sources, verification
from dali_cutmix.data.formats.coco import BACKGROUND, read_annotations
from dali_cutmix.data.readers import read_boxes
from tests.support.rectangles import coco

OPTIONS: dict[str, Any] = {"batch_size": 3, "size": 32, "device": "cpu", "training": False}
GOOD = [0, 0, 10, 10]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def box(image: int, category: int, bbox: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


@pytest.fixture
def content() -> dict[str, Any]:
    """Three images of 40 x 48; categories and images are in no order."""
    return coco(
        [{"id": 9, "file_name": "b.png"}, {"id": 7, "file_name": "sub/a.png"},
         {"id": 8, "file_name": "c.png"}],
        [box(7, 5, [1, 2, 3, 4]), box(9, 90, [0.5, 0.25, 47, 39]), box(7, 3, [38, 30, 10, 10]),
         box(9, 5, [0, 0, 20, 20], iscrowd=1)],
        {90: "zebra", 3: "yak", 5: "ant"},
    )  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    """Writes annotations, and images of 40 x 48 where there are none."""
    for image in content["images"] if isinstance(content, dict) else ():
        path = folder / str(image.get("file_name") or "none.png")
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            Image.new("RGB", (48, 40)).save(path)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def read(source: dcm.Source) -> dict[int, tuple[list[Any], list[int]]]:
    """Boxes and labels by image id, as the graph reads them."""

    @pipeline_def(batch_size=source.size or 0, num_threads=1, device_id=None)
    def pipe() -> Any:
        return read_boxes(source, shuffle=False)[1:]

    boxes, labels, ids = (list(map(np.array, output)) for output in pipe().run())
    return {
        int(number[0]): (rows.tolist(), names.ravel().tolist())
        for rows, names, number in zip(boxes, labels, ids, strict=True)
    }


# What is read


def test_labels_go_by_the_ids_of_categories(tmp_path: Path, content: dict[str, Any]) -> None:
    source = dcm.find_source(tmp_path, annotations=write(tmp_path, content))
    assert source.classes == (BACKGROUND, "yak", "ant", "zebra")
    assert source.num_classes == 4
    assert source.files == ("b.png", "sub/a.png", "c.png")
    assert source.labels == (9, 7, 8)
    assert source.annotations is not None
    assert source.annotations.category_ids == (3, 5, 90)
    found = read(source)
    assert [found[k][1] for k in (9, 7, 8)] == [[3], [2, 1], []]
    sides = np.array([48, 40, 48, 40], np.float32)
    expected = np.array([[1, 2, 4, 6], [38, 30, 48, 40]], np.float32) / sides
    assert np.abs(np.array(found[7][0]) - expected).max() < 1e-6
    expected = np.array([[0.5, 0.25, 47.5, 39.25]], np.float32) / sides
    assert np.abs(np.array(found[9][0]) - expected).max() < 1e-6


@pytest.mark.parametrize("background", [True, False])
def test_labels_go_by_the_classes_that_are_given(
    tmp_path: Path, content: dict[str, Any], background: bool
) -> None:
    names = ["bee", "zebra", "ant", "yak"]
    given = [BACKGROUND, *names] if background else names
    source = dcm.find_source(tmp_path, annotations=write(tmp_path, content), classes=given)
    assert source.classes == (BACKGROUND, *names)
    found = read(source)
    assert [found[k][1] for k in (9, 7, 8)] == [[2], [3, 4], []]
    with pytest.raises(ValueError, match=r"`classes` must name every category of .* lacks 'yak'"):
        dcm.find_source(tmp_path, annotations=tmp_path / "annotations.json", classes=names[:-1])


def test_boxes_that_reach_outside_by_a_pixel_are_clipped(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    content["annotations"] = [box(7, 3, [-1, -0.5, 50, 41.5]), box(8, 3, [47.9, 39, 1.1, 2])]
    found = read(dcm.find_source(tmp_path, annotations=write(tmp_path, content)))
    assert found[7][0] == [[0, 0, 1, 1]]
    assert np.allclose(found[8][0], [[47.9 / 48, 39 / 40, 1, 1]])


def test_small_boxes_are_read(tmp_path: Path, content: dict[str, Any]) -> None:
    content["annotations"] = [box(7, 3, [3, 3, 0.01, 0.02])]
    found = read(dcm.find_source(tmp_path, annotations=write(tmp_path, content)))
    assert len(found[7][0]) == 1


def test_the_identity_is_that_of_the_annotations(tmp_path: Path, content: dict[str, Any]) -> None:
    def identity(**options: Any) -> str:
        path = write(tmp_path, content)
        return dcm.find_source(tmp_path, annotations=path, **options).identity

    first = identity()
    assert identity() == first
    assert identity(subset=[0, 2]) != first
    assert identity(classes=["zebra", "ant", "yak"]) != first
    content["annotations"][0]["bbox"][0] = 0
    assert identity() != first


def test_chosen_images(tmp_path: Path, content: dict[str, Any]) -> None:
    path = write(tmp_path, content)
    source = dcm.find_source(tmp_path, annotations=path, subset=[2, 0], weights=[1, 2])
    assert source.files == ("c.png", "b.png", "b.png")
    assert [*read(source)] == [8, 9]
    with pytest.raises(ValueError, match="`weights` must be numbers with `annotations`"):
        dcm.find_source(tmp_path, annotations=path, weights="balanced")


# What is wrong


def changed(content: dict[str, Any], part: str, number: int, **values: Any) -> None:
    content[part][number] = {**content[part][number], **values}


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("categories", {"id": 65536}, r"the ids of categories must be different and in \[0, 65536"),
        ("categories", {"id": 3}, "the ids of categories must be different"),
        ("categories", {"id": "3"}, "the ids of categories must be different"),
        ("categories", {"name": "ant"}, "must have categories of different names"),
        ("categories", {"name": BACKGROUND}, "must have categories of different names"),
        ("images", {"id": 7}, "images must have different ids, got 7 twice"),
        ("images", {"id": 2**31}, r"an image must have an id in \[0, 2\^31\)"),
        ("images", {"id": "9"}, "an image must have an id"),
        ("images", {"file_name": ""}, "an image must have an id"),
        ("images", {"file_name": "c.png"}, "images must have different files, got 'c.png' twice"),
        ("images", {"height": 0}, "an image must have an id .* a height and a width"),
        ("images", {"width": None}, "an image must have an id .* a height and a width"),
        ("annotations", {"bbox": None}, "a bbox must be four numbers, .* got None in annotation 1"),
        ("annotations", {"bbox": [1, 2, 3]}, "a bbox must be four numbers"),
        ("annotations", {"bbox": [1, 2, 3, "4"]}, "a bbox must be four numbers"),
        ("annotations", {"bbox": [1, 2, 3, float("nan")]}, "a bbox must be four numbers"),
        ("annotations", {"bbox": [1, 2, 3, float("inf")]}, "a bbox must be four numbers"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_file_that_is_not_as_coco_has_it_is_refused(
    tmp_path: Path,
    content: dict[str, Any],
    part: str,
    values: dict[str, Any],
    message: str,
    on_error: Any,
) -> None:
    changed(content, part, 0, **values)
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        dcm.detection_loader(tmp_path, path, on_error=on_error, **OPTIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON, in UTF-8"),
        ('{"images": []}', "must have lists 'images', 'annotations', 'categories'"),
        ("[]", "must have lists"),
        ('{"images": {}, "annotations": [], "categories": []}', "must have lists"),
        ('{"images": [3], "annotations": [], "categories": []}', "'images' must be objects, got 3"),
        ('{"images": [], "annotations": [], "categories": []}', "must have categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "must have at least one"),
        ("[" * 100_000, "must be JSON"),
        ("\ufeff{}", "must be JSON"),
    ],
)
def test_what_is_no_json_of_coco_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        read_annotations(str(path), str(tmp_path))


def test_files_that_are_not_there(tmp_path: Path, content: dict[str, Any]) -> None:
    path = write(tmp_path, content)
    with pytest.raises(FileNotFoundError, match="`annotations` must be a file, got"):
        dcm.find_source(tmp_path, annotations=tmp_path / "other.json")
    with pytest.raises(ValueError, match="`source` must be a folder on this machine with"):
        dcm.find_source(tmp_path / "c.png", annotations=path)
    with pytest.raises(ValueError, match="`source` must be a folder on this machine with"):
        dcm.find_source("s3://bucket/images", annotations=path)
    with pytest.raises(ValueError, match="`label_offset` must be left out with `annotations`"):
        dcm.find_source(tmp_path, annotations=path, label_offset=1)
    with pytest.raises(ValueError, match="`kind` and `file_root` must be left out"):
        dcm.find_source(tmp_path, annotations=path, kind="list")


FAULTS: list[tuple[dict[str, Any], str, str, type[Exception]]] = [
    (box(7, 3, [3, 3, 0, 5]), "sub/a.png", "box", ValueError),
    (box(7, 3, [3, 3, 5, -1]), "sub/a.png", "box", ValueError),
    (box(7, 3, [-1.5, 3, 5, 5]), "sub/a.png", "box", ValueError),
    (box(7, 3, [3, 3, 5, 38.5]), "sub/a.png", "box", ValueError),
    (box(8, 3, [48, 3, 1, 5]), "c.png", "box", ValueError),
    (box(8, 4, GOOD), "c.png", "label", ValueError),
    (box(8, None, GOOD), "c.png", "label", ValueError),
]


@pytest.mark.parametrize(("one", "name", "problem", "error"), FAULTS)
def test_faults_are_errors_that_name_the_image_or_left_out(
    tmp_path: Path,
    content: dict[str, Any],
    one: dict[str, Any],
    name: str,
    problem: str,
    error: type[Exception],
) -> None:
    content["annotations"].append({"id": 77, **one})
    path = write(tmp_path, content)
    with pytest.raises(error, match=f"{path}' must fit its images, got '{name}': "):
        dcm.detection_loader(tmp_path, path, **OPTIONS)
    with pytest.warns(UserWarning, match="1 of 3 samples are left out") as caught:
        val = dcm.detection_loader(tmp_path, path, on_error="skip", **OPTIONS)
    assert caught[0].filename == __file__
    assert val.skipped == (f"{name} ({problem})",)
    left = {9: "b.png", 7: "sub/a.png", 8: "c.png"}
    with val:
        assert [left[int(t["image_id"])] for _, targets in val for t in targets] == [
            other for other in left.values() if other != name
        ]


def test_annotations_of_images_that_are_not_there(tmp_path: Path, content: dict[str, Any]) -> None:
    content["annotations"].append({"id": 77, **box(6, 3, GOOD)})
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match="annotation 77 is of image 6, which is not there"):
        dcm.find_source(tmp_path, annotations=path)
    with pytest.warns(UserWarning, match="0 of 3 samples are left out: .*json .entry."):
        val = dcm.detection_loader(tmp_path, path, on_error="skip", **OPTIONS)
    with val:
        assert val.num_images == 3


def test_files_that_are_missing_damaged_or_of_another_size(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    path = write(tmp_path, content)
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"got 'b\.png': no file in"):
        dcm.detection_loader(tmp_path, path, **OPTIONS)
    Image.new("RGB", (40, 48)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=f"cannot be read: {tmp_path}/c.png"):
        dcm.detection_loader(tmp_path, path, **OPTIONS)
    with pytest.warns(UserWarning, match="2 of 3 samples are left out"):
        val = dcm.detection_loader(tmp_path, path, on_error="skip", **OPTIONS)
    assert val.skipped == ("b.png (size)", "c.png (truncated)")
    with val:
        assert val.num_images == 1
    (tmp_path / "sub" / "a.png").unlink()
    with pytest.raises(ValueError, match="must hold a good image, has none"):
        with pytest.warns(UserWarning, match="3 of 3 samples are left out"):
            dcm.detection_loader(tmp_path, path, on_error="skip", **OPTIONS)


def test_the_size_is_that_of_the_turned_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 40)).save(tmp_path / "turned.jpg", exif=exif)
    entry = {"id": 1, "file_name": "turned.jpg", "height": 48, "width": 40}
    path = write(tmp_path, coco([entry], [], {1: "x"}))
    options: dict[str, Any] = {**OPTIONS, "on_error": "skip"}
    with dcm.detection_loader(tmp_path, path, **options) as val:
        ((_, (target,)),) = list(val)
    assert target["original_size"].tolist() == [48, 40]
    path = write(tmp_path, coco([{**entry, "height": 40, "width": 48}], [], {1: "x"}))
    with pytest.raises(ValueError, match="must hold a good image"):
        with pytest.warns(UserWarning, match=r"turned.jpg \(size\)"):
            dcm.detection_loader(tmp_path, path, **options)


# check


def test_check_names_all_that_is_wrong(
    tmp_path: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, content)
    command = ["check", str(tmp_path), "--annotations", str(path)]
    assert cli.main(command) == 0
    assert "notes: 1 no boxes" in capsys.readouterr().out
    content["annotations"] += [{"id": 70 + k, **one} for k, (one, *_) in enumerate(FAULTS)]
    content["annotations"].append({"id": 90, **box(6, 3, GOOD)})
    write(tmp_path, content)
    shutil.copy(tmp_path / "c.png", tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes(b"")
    report = tmp_path / "report.json"
    assert cli.main([*command, "--report", str(report)]) == 3
    out = capsys.readouterr().out
    assert "5 box: has a box that reaches out of it or has no area" in out
    assert "[3, 3, 5, 38.5] (x, y, width, height) reaches out of 48 x 40" in out
    assert "annotation 90 is of image 6, which is not there" in out
    counts = json.loads(report.read_text())["counts"]
    assert counts == {"box": 5, "label": 2, "entry": 1, "empty": 1}
    with pytest.raises(SystemExit):
        cli.main(["check", "--annotations", str(path)])
    assert cli.main([*command, "--write-list", str(tmp_path / "list.txt")]) == 1
    assert "`--write-list` must be left out with `--annotations`" in capsys.readouterr().err


def test_what_was_found_is_remembered_until_the_annotations_change(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    path = write(tmp_path, content)

    def scanned() -> tuple[int, int]:
        source = sources.unchecked_source(tmp_path, annotations=path)
        found = verification.verify(source)
        return found.scanned, len(found.problems)

    assert scanned() == (3, 0)
    assert scanned() == (0, 0)
    content["images"][0]["width"] = 47
    write(tmp_path, content)
    assert scanned() == (3, 1)  # its box reaches out by half a pixel, which is right
    assert scanned() == (0, 1)
