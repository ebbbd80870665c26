"""Folders of classes as people have them: what is read, with which labels, and what is said."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dali_cutmix as dcm

SMALL: dict[str, Any] = {"batch_size": 2, "size": 8, "device": "cpu", "num_threads": 1}
LEVEL: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "resize": 8}


def image(level: int, path: Path) -> None:
    """A gray image, which its level tells from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (level,) * 3).save(path, "JPEG" if path.suffix != ".png" else None)


def read(source: Any, **options: Any) -> list[tuple[int, int]]:
    """The level and the label of each image, in order."""
    with dcm.val_loader(source, **{**SMALL, **LEVEL, **options}) as loader:
        return [
            (round(float(one.mean() * 255)), int(label))
            for images, labels in loader
            for one, label in zip(images, labels, strict=True)
        ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with an image each."""
    image(10, tmp_path / "data" / "a" / "1.jpg")
    image(20, tmp_path / "data" / "b" / "1.jpg")
    return tmp_path / "data"


TWO = [(10, 0), (20, 1)]
HIDDEN: dict[str, Callable[[Path], None]] = {
    "a hidden folder": lambda root: (root / ".ipynb_checkpoints").mkdir(),
    "one with an image": lambda root: image(9, root / ".ipynb_checkpoints" / "1-checkpoint.jpg"),
    "a trash": lambda root: image(9, root / ".Trash-1000" / "files" / "1.jpg"),
    "thumbnails": lambda root: image(9, root / ".@__thumb" / "1.jpg"),
    "in a class": lambda root: image(9, root / "a" / ".ipynb_checkpoints" / "1-checkpoint.jpg"),
    "a hidden file": lambda root: image(9, root / "a" / ".1.jpg"),
    "of a Mac": lambda root: image(9, root / "a" / "._1.jpg"),
    "an archive of a Mac": lambda root: image(9, root / "__MACOSX" / "a" / "1.jpg"),
    "of a NAS": lambda root: image(9, root / "b" / "@eaDir" / "1.jpg"),
    "lost+found": lambda root: (root / "lost+found").mkdir(),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden_is_ignored(root: Path, tmp_path: Path, name: str) -> None:
    HIDDEN[name](root)
    assert dcm.find_source(root).classes == ("a", "b")
    assert read(root) == TWO
    listed = tmp_path / "list.txt"
    command = [sys.executable, "-m", "dali_cutmix.cli", "check", str(root), "--write-list"]
    subprocess.run([*command, str(listed)], check=True, capture_output=True)
    assert listed.read_text() == '# classes: ["a", "b"]\na/1.jpg\t0\nb/1.jpg\t1\n'
    assert read(dcm.find_source(listed, file_root=root)) == TWO


def test_patterns_in_the_names_of_folders_are_names(tmp_path: Path) -> None:
    for level, name in ((10, "[a]"), (20, "b*"), (30, "c?")):
        image(level, tmp_path / name / "1.jpg")
    image(9, tmp_path / "__MACOSX" / "1.jpg")
    assert read(tmp_path) == [(10, 0), (20, 1), (30, 2)]


def test_nested_folders_are_read_as_torchvision_does(root: Path, tmp_path: Path) -> None:
    image(11, root / "a" / "z" / "0.jpg")
    image(12, root / "a" / "k" / "deep" / "0.png")
    image(21, root / "b" / "only" / "0.jpg")
    image(31, root / "c" / "only nested" / "0.jpg")
    (root / "a" / "k" / "notes.txt").write_text("no image")
    elsewhere = tmp_path / "elsewhere"
    image(22, elsewhere / "0.jpg")
    os.symlink(elsewhere, root / "b" / "linked")
    expected = [(10, 0), (12, 0), (11, 0), (20, 1), (22, 1), (21, 1), (31, 2)]
    source = dcm.find_source(root)
    assert (source.classes, source.size) == (("a", "b", "c"), 7)
    assert read(root) == expected
    # torchvision's own rule: os.walk, sorted, links followed.
    walked = [
        (os.path.join(path, name), label)
        for label, cls in enumerate(sorted(os.listdir(root)))
        for path, _, names in sorted(os.walk(root / cls, followlinks=True))
        for name in sorted(names)
        if name.endswith((".jpg", ".png"))
    ]
    assert read(walked) == expected
    with dcm.train_loader(root, **SMALL, mix=None) as loader:
        assert loader.classes == ("a", "b", "c")
        assert loader.num_images == 7


def test_what_was_probably_meant_is_said(root: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    for split in ("train", "val"):
        image(1, parent / split / "cat" / "1.jpg")
    with pytest.raises(
        ValueError, match=r"parent', the parent of 'train' and 'val': give '.*train'"
    ):
        read(parent)
    with pytest.raises(
        ValueError, match=r"a', which holds images itself: give the folder it is in"
    ):
        read(root / "a")
    (root / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 empty: 'empty'. Remove the empty folders"):
        read(root)
    with pytest.raises(FileNotFoundError, match=r"without folders|none of these"):
        read(root / "empty")
    # Classes may be called so where they hold images.
    for name in ("train", "val"):
        image(7, tmp_path / "vehicles" / name / "1.jpg")
    assert read(tmp_path / "vehicles") == [(7, 0), (7, 1)]


def test_numbers_are_sorted_as_text_or_by_number(tmp_path: Path) -> None:
    for k in (0, 1, 2, 10, 11):
        image(10 * k, tmp_path / str(k) / "1.jpg")
    with pytest.warns(UserWarning, match="are numbers, and sorted as text, as torchvision does"):
        assert read(tmp_path) == [(0, 0), (10, 1), (100, 2), (110, 3), (20, 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = dcm.find_source(tmp_path, classes="natural")
        assert source.classes == ("0", "1", "2", "10", "11")
        assert sorted(read(source)) == [(0, 0), (10, 1), (20, 2), (100, 3), (110, 4)]
        image(20, tmp_path / "02" / "1.jpg")  # of the same width no word is needed
    for name in ("part 2", "part 10", "part 1"):
        image(1, tmp_path / "parts" / name / "1.jpg")
    source = dcm.find_source(tmp_path / "parts", classes="natural")
    assert source.classes == ("part 1", "part 2", "part 10")


# Classes by name


def test_a_subset_of_the_classes_has_the_labels_of_training(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    for k, name in enumerate(names):
        image(10 * k, tmp_path / "train" / name / "1.jpg")
        if name in "bd":
            image(10 * k + 5, tmp_path / "val" / name / "1.jpg")
    with dcm.train_loader(tmp_path / "train", **SMALL, mix=None) as train:
        for options in ({"classes": train.classes}, {"like": train}):
            assert read(tmp_path / "val", **options) == [(15, 1), (35, 3)]
        (tmp_path / "val" / "c").mkdir()  # empty
        assert read(tmp_path / "val", classes=train.classes) == [(15, 1), (35, 3)]
        with dcm.val_loader(tmp_path / "val", like=train, size=8, resize=8) as val:
            assert val.classes == train.classes
            assert val.num_classes == 4
        image(1, tmp_path / "val" / "e" / "1.jpg")
        with pytest.raises(
            ValueError, match=r"`classes` must name every class folder of .*, lacks 'e'"
        ):
            read(tmp_path / "val", classes=train.classes)
    source = dcm.find_source(tmp_path / "train", classes=("d", "c", "b", "a"))
    assert sorted(read(source)) == [(0, 3), (10, 2), (20, 1), (30, 0)]


def test_lists_can_have_names(root: Path) -> None:
    listed = root / "list.txt"
    listed.write_text("a/1.jpg 0\nb/1.jpg 1\n")
    assert dcm.find_source(listed).classes is None
    named = dcm.find_source(listed, classes=["cat", "dog", "owl"])
    assert (named.classes, named.num_classes) == (("cat", "dog", "owl"), 3)
    with pytest.raises(ValueError, match=r"`classes` must name the 2 classes of .*, got 1 names"):
        dcm.find_source(listed, classes=["cat"])
    for wrong in (["a", "a"], []):
        with pytest.raises(ValueError, match="`classes` must be different names"):
            dcm.find_source(listed, classes=wrong)
    for other in ("ab", 3, [1]):
        with pytest.raises(TypeError, match="`classes` must be a list of class names"):
            dcm.find_source(listed, classes=other)  # type: ignore[arg-type]
    listed.write_text('# classes: ["cat", "dog"]\na/1.jpg 0\nb/1.jpg 1\n')
    assert dcm.find_source(listed).classes == ("cat", "dog")
    assert read(listed) == TWO
    for line, message in (
        ('# classes: ["cat"]', "must name class 1, has 1"),
        ("# classes: cat", "must have names as JSON"),
    ):
        listed.write_text(f"{line}\na/1.jpg 0\nb/1.jpg 1\n")
        with pytest.raises(ValueError, match=message):
            dcm.find_source(listed)


def test_lists_that_begin_at_1_are_told(root: Path) -> None:
    listed = root / "list.txt"
    listed.write_text("a/1.jpg 1\nb/1.jpg 2\n")
    with pytest.warns(UserWarning, match=r"so that no image is of class 0.*label_offset"):
        assert dcm.find_source(listed).num_classes == 3
    assert dcm.find_source(listed, label_offset=-1).num_classes == 2


# Samples in memory, parts of them, repeated ones


class LikeTorchvision:
    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self.samples = samples


class LikeTimm:
    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self.reader = LikeTorchvision(samples)


def test_samples_in_memory(root: Path) -> None:
    samples = [(str(root / "b" / "1.jpg"), 7), (str(root / "a" / "1.jpg"), 0)]
    expected = [(20, 7), (10, 0)]
    for source in (samples, LikeTorchvision(samples), LikeTimm(samples)):
        assert read(source) == expected
    assert read([(Path(path), np.int64(label)) for path, label in samples]) == expected
    named = dcm.find_source(samples, classes=[f"c{k}" for k in range(9)])
    assert named.num_classes == 9
    with pytest.raises(FileNotFoundError, match="`source` must name files that exist, got '/no/x"):
        dcm.find_source([("/no/x.jpg", 0)])
    with pytest.raises(TypeError, match=r"`label` must be an int, got 'a'"):
        dcm.find_source([(str(root / "a" / "1.jpg"), "a")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="must be at least 0, got -1 as 0"):
        dcm.find_source([(str(root / "a" / "1.jpg"), -1)])
    with pytest.raises(TypeError, match=r"`source` must be \(path, label\) pairs, got 3 as 1"):
        dcm.find_source([samples[0], 3])  # type: ignore[list-item]


def test_a_subset_in_an_order_of_ones_own(root: Path) -> None:
    image(11, root / "a" / "2.jpg")
    assert read(dcm.find_source(root, subset=[2, 0, 2])) == [(20, 1), (10, 0), (20, 1)]
    source = dcm.find_source(root, subset=np.array([1]))  # type: ignore[arg-type]
    assert read(source) == [(11, 0)]
    assert source.num_classes == 2
    listed = root / "list.txt"
    listed.write_text("a/1.jpg 0\nb/1.jpg 1\n")
    assert read(dcm.find_source(listed, subset=[1])) == [(20, 1)]
    with pytest.raises(ValueError, match="`subset` must be at most 2, got 3"):
        dcm.find_source(root, subset=[3])
    with pytest.raises(ValueError, match="`subset` must have an index at least, got none"):
        dcm.find_source(root, subset=[])


def test_lists_that_repeat_images_where_it_is_asked_for(root: Path) -> None:
    listed = root / "list.txt"
    listed.write_text("a/1.jpg 0\nb/1.jpg 1\nb/1.jpg 1\n")
    message = r"line 3: must name every image once, .*read with find_source\(…, repeated=True\)"
    with pytest.raises(ValueError, match=message):
        dcm.find_source(listed)
    source = dcm.find_source(listed, repeated=True)
    assert source.size == 3
    assert read(source) == [(10, 0), (20, 1), (20, 1)]
    with dcm.train_loader(source, **{**SMALL, "batch_size": 3}, mix=None) as loader:
        assert repr(loader).startswith("<Loader: 3 images, 2 classes")
        assert sorted(label for _, labels in loader for label in labels.tolist()) == [0, 1, 1]


def test_a_class_that_was_emptied_later_keeps_its_label(root: Path) -> None:
    image(30, root / "c" / "1.jpg")
    source = dcm.find_source(root)
    (root / "b" / "1.jpg").unlink()
    assert read(source) == [(10, 0), (30, 2)]


def test_a_link_to_a_folder_in_a_class_is_read_as_a_nested_one(root: Path) -> None:
    # It does not count among the links of the folder it is in, so that its name must tell.
    image(15, root.parent / "elsewhere" / "2.jpg")
    (root / "a" / "more").symlink_to(root.parent / "elsewhere")
    assert read(root) == [(10, 0), (15, 0), (20, 1)]
