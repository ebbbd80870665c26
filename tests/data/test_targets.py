"""Targets beyond one class, weights, and samples in memory: what is yielded and what is said."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli.main import main
from dali_cutmix.data import targets as tables

SMALL: dict[str, Any] = {"batch_size": 4, "size": 8, "device": "cpu", "num_threads": 1}
LEVEL: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "resize": 8}
NAMES = [f"{'ab'[i % 2]}/{i}.png" for i in range(8)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 images in two folders, each of a level: 20 times its number."""
    root = tmp_path_factory.mktemp("targets")
    for i, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (20 * i,) * 3).save(path)
    return root


def yielded(source: Any, **options: Any) -> dict[int, Any]:
    """The target of each image, by its number."""
    with dcm.val_loader(source, **{**SMALL, **LEVEL, **options}) as loader:
        found = {}
        for images, targets in loader:
            for image, target in zip(images, targets, strict=True):
                found[round(float(image.mean() * 255 / 20))] = target.tolist()
    return found


LABELS = [["cat"], ["dog", "cat"], [], ["owl"], ["dog"], ["cat", "owl"], ["owl", "dog"], ["dog"]]
CLASSES = ("cat", "dog", "owl")
K_HOT = [[float(name in one) for name in CLASSES] for one in LABELS]
SOFT = np.random.default_rng(0).dirichlet([1.0] * 4, 8).astype(np.float32)


def test_several_labels_by_name(root: Path, tmp_path: Path) -> None:
    as_json = tmp_path / "labels.json"
    as_json.write_text(json.dumps(dict(zip(NAMES, LABELS, strict=True))))
    lines = [f"{name},{'|'.join(one)}" for name, one in zip(NAMES, LABELS, strict=True)]
    as_csv = tmp_path / "labels.csv"
    as_csv.write_text("\n".join(["Image Index,Finding Labels", *lines]) + "\n")
    for given in (as_json, str(as_csv), dict(zip(NAMES, LABELS, strict=True))):
        assert yielded(root, targets=given) == dict(enumerate(K_HOT))
        assert dcm.find_source(root, targets=given).classes == CLASSES


def test_columns_of_numbers(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "soft.csv"
    lines = [
        ",".join([name, *(f"{x!r}" for x in row.tolist())])
        for name, row in zip(NAMES, SOFT, strict=True)
    ]
    path.write_text("\ufefffile;a;b;c;d\r\n".replace(";", ",") + "\r\n".join(lines))
    source = dcm.find_source(root, targets=path)
    assert (source.classes, source.num_classes) == (tuple("abcd"), 4)
    assert yielded(source) == dict(enumerate(SOFT.tolist()))


def test_columns_are_put_in_the_order_of_the_classes(root: Path, tmp_path: Path) -> None:
    """A validation set whose columns are in another order has training's columns."""
    paths = {}
    for order in ((0, 1, 2), (2, 0, 1)):
        path = paths[order] = tmp_path / f"{order[0]}.csv"
        lines = [
            ",".join([name, *(str(row[k]) for k in order)])
            for name, row in zip(NAMES, K_HOT, strict=True)
        ]
        header = ",".join(["file", *(CLASSES[k] for k in order)])
        path.write_text("\n".join([header, *lines]))
    with dcm.train_loader(root, targets=paths[0, 1, 2], mix=None, **SMALL) as train:
        options = {**LEVEL, "like": train, "batch_size": 4, "size": 8}
        assert yielded(root, targets=paths[2, 0, 1], **options) == dict(enumerate(K_HOT))
    with pytest.raises(ValueError, match="names that differ in 'bird', 'cat', 'owl'"):
        dcm.find_source(root, targets=paths[0, 1, 2], classes=["bird", "dog"])


def test_labels_that_are_numbers_are_columns(root: Path) -> None:
    given = dict(zip(NAMES, ["0|7", "1", "", "10", "2;3", "7, 1", "3", "0"], strict=True))
    expected = [[0, 7], [1], [], [10], [2, 3], [1, 7], [3], [0]]
    found = yielded(root, targets=given)
    assert [np.flatnonzero(found[i]).tolist() for i in range(8)] == expected
    source = dcm.find_source(root, targets=given)
    assert (source.num_classes, source.classes) == (11, None)


def test_names_with_blanks(root: Path) -> None:
    given = dict.fromkeys(NAMES, "No Finding")
    with pytest.warns(UserWarning, match="'No Finding' are 2 labels. .* separate them by |"):
        assert dcm.find_source(root, targets=given).classes == ("Finding", "No")
    given[NAMES[0]] = "Edema|Pleural Thickening"
    source = dcm.find_source(root, targets=given)
    assert source.classes == ("Edema", "No Finding", "Pleural Thickening")


def test_names_of_files_without_folder_or_extension(root: Path) -> None:
    for cut in (os.path.basename, lambda name: Path(name).stem):
        given = {cut(name): one for name, one in zip(NAMES, LABELS, strict=True)}
        assert yielded(root, targets=given) == dict(enumerate(K_HOT))
    whole = {str(root / name): one for name, one in zip(NAMES, LABELS, strict=True)}
    assert yielded(root, targets=whole) == dict(enumerate(K_HOT))
    with pytest.warns(UserWarning, match="1 of 9 entries of 'targets' name no image"):
        dcm.find_source(root, targets={**whole, "other.png": ["cat"]})


def test_a_flat_folder(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("RGB", (9, 9), (20 * i,) * 3).save(tmp_path / f"{i}.png")
    ages = {f"{i}.png": 10.5 * i for i in range(4)}
    assert yielded(tmp_path, targets=ages) == {i: [10.5 * i] for i in range(4)}


def test_arrays(root: Path) -> None:
    paths = np.array([str(root / name) for name in NAMES])
    for rows in (SOFT, np.array(K_HOT), np.array(K_HOT, bool)):
        expected = np.asarray(rows, np.float32).tolist()
        assert yielded(paths, targets=rows) == dict(enumerate(expected))
    ages = np.linspace(-3, 90, 8)
    column = ages.astype(np.float32)[:, None].tolist()
    assert yielded(list(paths), targets=ages) == dict(enumerate(column))
    assert yielded((paths, np.arange(8) % 3)) == {i: i % 3 for i in range(8)}


def test_lists(root: Path) -> None:
    path = root / "list.txt"
    numbers = [[CLASSES.index(name) for name in one] for one in LABELS]
    for between, separator in ((" ", " "), (" ", ","), ("\t", " "), ("\t", ",")):
        lines = [
            name + (between if one else "") + separator.join(map(str, one))
            for name, one in zip(NAMES, numbers, strict=True)
        ]
        path.write_text("\n".join(lines) + "\n")
        source = dcm.find_source(path, targets="labels", classes=CLASSES)
        assert yielded(source) == dict(enumerate(K_HOT))
    soft = zip(NAMES, SOFT, strict=True)
    lines = [f"{name} {' '.join(map(repr, row.tolist()))}" for name, row in soft]
    path.write_text("\n".join(lines))
    assert yielded(path, targets="rows") == dict(enumerate(SOFT.tolist()))
    path.write_text("\n".join(NAMES[2:5]))  # a split, and one file for all
    given = dict(zip(NAMES[2:5], LABELS[2:5], strict=True))
    found = yielded(path, targets=given, classes=CLASSES)
    assert found == {i: K_HOT[i] for i in (2, 3, 4)}
    path.unlink()


@pytest.mark.parametrize("columns", [1, 2, 30, 31, 32, 62, 63, 100])
@pytest.mark.parametrize("packed", [True, False])
def test_rows_are_looked_up_exactly(columns: int, packed: bool) -> None:
    rng = np.random.default_rng(columns)
    rows = rng.normal(size=(50, columns)).astype(np.float32)
    if packed:
        rows = (rng.random((50, columns)) < 0.4).astype(np.float32)
    table, numbers = tables.Targets.of(rows)

    @pipeline_def(batch_size=50, num_threads=1, device_id=None)
    def pipe() -> Any:
        number = fn.external_source(source=lambda: [np.array([n], np.int32) for n in numbers])
        return tables.look_up(number, table)

    (out,) = pipe().run()
    assert out.dtype.name == "FLOAT"
    assert np.array_equal(np.array(out.as_array()), rows)
    assert table.packed is packed


Given = Callable[[Path], Any]
WRONG: dict[str, tuple[Given, dict[str, Any], str]] = {
    "an image without": (lambda _: {NAMES[0]: ["cat"]}, {}, "each of the 8 images, lacks 7: 'a/2"),
    "two lengths": (
        lambda _: {n: [1.0] * (1 + i % 2) for i, n in enumerate(NAMES)},
        {},
        "rows of one length, got 1, 2. Several labels are given by their names",
    ),
    "class numbers": (lambda _: dict.fromkeys(NAMES, 3), {}, "class labels are given as a list"),
    "nan": (lambda _: {n: float("nan") for n in NAMES}, {}, "must be finite"),
    "a name and a number": (
        lambda _: {n: ["cat", 1][i % 2] for i, n in enumerate(NAMES)},
        {},
        "`targets` must be a number",
    ),
    "no label at all": (lambda _: {n: [] for n in NAMES}, {}, "must have at least one label"),
    "an unknown label": (
        lambda _: dict(zip(NAMES, LABELS, strict=True)),
        {"classes": ["cat", "dog"]},
        "`classes` must name every label, lacks 'owl'",
    ),
    "names for other columns": (
        lambda _: {n: [0.5, 1.0] for n in NAMES},
        {"classes": ["x"]},
        "must name the 2 columns of the targets, got 1 names",
    ),
    "no file": (lambda path: path / "none.csv", {}, "must be an existing file"),
    "a number": (lambda _: 3, {}, "must be a file or a mapping where .* got int"),
    "rows of a folder": (lambda _: np.zeros((8, 2)), {}, "got ndarray: whose rows are they?"),
    "numbers of NumPy": (lambda _: dict.fromkeys(NAMES, np.int64(3)), {}, "must be floats"),
    "two numbers each": (lambda _: {n: [3, 17] for n in NAMES}, {}, "several labels by their"),
    "labels beside them": (lambda _: {n: [1.0] for n in NAMES}, {"repeated": True}, "`repeated`"),
    "in a folder": (
        lambda _: "labels",
        {},
        "must be a file, a mapping or an array where",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str, root: Path, tmp_path: Path) -> None:
    given, options, words = WRONG[case]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words):
        dcm.find_source(root, targets=given(tmp_path), **options)


CSVS = {
    "file\na.png\n": "must have a header and lines: a column of files",
    "file,cat,dog\nx.png,1\n": "line 2: must have 3 values",
    "file,tags\nx.png,cat\nx.png,dog\n": "line 3: must name every file once, got 'x.png'",
    "file,label\nx.png,1\ny.png,0\n": "class labels are given as a list",
    "x.png,1\ny.png,0\n": "must begin with a line that names the columns",
    "file,a,a\nx.png,1,0\n": "must have different names of columns",
    "file,a,b\nx.png,1,\n": "must have numbers in its columns, or one column of names, got ''",
}


@pytest.mark.parametrize("text", CSVS)
def test_a_wrong_csv(text: str, root: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=CSVS[text]):
        dcm.find_source(root, targets=path)


LISTS = {
    ("rows", "a/0.png 1 2\na/2.png 1\n"): "line 2: must have 2 .* behind the path, got 1",
    ("rows", "a/0.png\n"): "line 1: must have at least one",
    ("labels", "a/0.png 1.5\n"): "labels must be whole numbers from 0",
    ("labels", "a/0.png -1\n"): "labels must be whole numbers from 0",
    ("labels", "a/nothing.png 1\n"): "must be a file, is none",
}


@pytest.mark.parametrize(("kind", "text"), LISTS)
def test_a_wrong_list(kind: str, text: str, root: Path) -> None:
    path = root / "wrong.txt"
    path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=LISTS[kind, text]):
        dcm.find_source(path, targets=kind)
    path.unlink()


def test_too_large_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_NUMBERS", 100)
    tables.Targets.of(np.eye(40))  # 80 words
    with pytest.raises(ValueError, match="at most 100 numbers in different rows, got 40 rows of"):
        tables.Targets.of(np.eye(40) / 2)


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_rows_are_mixed_by_lam(root: Path, device: str) -> None:
    many = [str(root / name) for name in NAMES] * 2
    rows = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
    mix = dcm.MixConfig(cutmix_alpha=1.0, mixup_alpha=0.4)
    options = {**SMALL, "batch_size": 16, "device": device, "mix": mix, "with_params": True}
    source = dcm.find_source(many, targets=rows)
    with dcm.train_loader(source, **options) as loader:
        assert loader.num_classes == 5
        for _ in range(3):
            for images, (targets, lam, _, own, other) in loader:
                assert images.shape == (16, 3, 8, 8)
                expected = lam[:, None] * own + (1 - lam[:, None]) * other
                assert (targets.cpu() - expected).abs().max() < 1e-6
                assert sorted(own.tolist()) == sorted(rows.tolist())
                assert 0 < lam.min() < lam.max() <= 1


def test_loaders_of_targets(root: Path) -> None:
    given = dict(zip(NAMES, LABELS, strict=True))
    with dcm.train_loader(root, targets=given, mix=None, **SMALL) as train:
        assert (train.classes, train.num_classes) == (CLASSES, 3)
        (_, rows), *_ = train
        assert rows.shape == (4, 3)
        with dcm.val_loader(root, targets=given, like=train) as val:
            assert val.classes == CLASSES
        state = train.state_dict()
    other = {**given, NAMES[0]: ["dog"]}
    with dcm.train_loader(root, targets=other, mix=None, **SMALL) as train:
        with pytest.raises(ValueError, match="same options and data, got source"):
            train.load_state_dict(state)
    shard = {"shard_id": 0, "num_shards": 2}
    with pytest.raises(ValueError, match="`even` must be False with targets beyond one class"):
        dcm.val_loader(root, targets=given, **SMALL, **shard)
    with pytest.raises(ValueError, match="`num_classes` must be the 3 columns of the targets"):
        dcm.train_loader(root, targets=given, num_classes=4, **SMALL)
    with pytest.raises(ValueError, match=r"`num_classes` must be the 3 columns .* got 7 in `mix`"):
        dcm.train_loader(root, targets=given, mix=dcm.MixConfig(num_classes=7), **SMALL)
    mix = dcm.MixConfig(label_smoothing=0.1)
    with pytest.raises(ValueError, match="`label_smoothing` must be 0"):
        dcm.train_loader(root, targets=given, mix=mix, **SMALL)
    with pytest.raises(ValueError, match='must be "int" for a loader without `targets`'):
        dcm.train_loader(root, mix=dcm.MixConfig(labels="float"), **SMALL)
    with pytest.raises(ValueError, match="`targets` must be given to find_source"):
        dcm.train_loader(dcm.find_source(root), targets=given, **SMALL)


# Weights, arrays and order


def seen(source: Any, **options: Any) -> Counter[int]:
    """How often each image comes in an epoch of training."""
    count: Counter[int] = Counter()
    with dcm.train_loader(source, mix=None, **{**SMALL, "batch_size": 1, **options}) as loader:
        mean, std = 0.485, 0.229
        for images, _ in loader:
            count[round(float(images[0, 0].mean() * std + mean) * 255 / 20)] += 1
    return count


def test_balanced_classes_come_equally_often(root: Path) -> None:
    samples = [(root / name, int(i > 4)) for i, name in enumerate(NAMES)]  # 5 and 3
    source = dcm.find_source(samples, weights="balanced")
    assert source.size == 10
    assert seen(source) == Counter({**dict.fromkeys(range(5), 1), 5: 2, 6: 2, 7: 1})
    whole = dcm.find_source(root, subset=[0, 1, 2, 3, 4], weights="balanced")  # 4 of a, 1 of b
    assert Counter(whole.labels) == {0: 4, 1: 4}


def test_weights(root: Path) -> None:
    source = dcm.find_source(root, weights=[1, 1.5, 1.5, 1, 2, 3, 0.5, 0.5])
    assert source.size == 22
    assert list(Counter(source.files).values()) == [2, 3, 3, 2, 4, 6, 1, 1]
    thirds = dcm.find_source(root, weights=[1, 4 / 3, 4 / 3, 4 / 3, 1, 1, 1, 1])
    assert sorted(Counter(thirds.files).values()) == [1] * 7 + [2]  # 9 in all
    for wrong, words in (
        ([1, 2], "must be 8 numbers above 0, one for each sample, got 2"),
        ([0, *[1] * 7], "got 8 from 0 on"),
        ("even", 'must be "balanced" or numbers'),
        ([1e-12, *[1] * 7], "an epoch of at most"),
    ):
        with pytest.raises(ValueError, match=words):
            dcm.find_source(root, weights=wrong)
    given = dict(zip(NAMES, LABELS, strict=True))
    with pytest.raises(ValueError, match="must be numbers with `targets`"):
        dcm.find_source(root, targets=given, weights="balanced")


def test_wrong_arrays(root: Path) -> None:
    paths = np.array([str(root / name) for name in NAMES])
    with pytest.raises(
        ValueError, match="`source` of two arrays must be paths and as many integer"
    ):
        dcm.find_source((paths, np.zeros(8)))
    with pytest.raises(ValueError, match="as many integer labels, got shapes"):
        dcm.find_source((paths, np.zeros(7, int)))
    with pytest.raises(FileNotFoundError, match="must name files that exist"):
        dcm.find_source(np.array(["/nowhere/a.png"]), targets=np.zeros((1, 2)))


def test_an_order_of_ones_own(root: Path) -> None:
    order = [5, 0, 7, 2, 2, 6]
    paths = [root / name for name in NAMES]
    source = dcm.find_source([(path, i) for i, path in enumerate(paths)], subset=order)
    options = {**SMALL, "batch_size": 2, "mix": None, "shuffle": False}
    with dcm.train_loader(source, **options) as loader:
        for epoch in range(3):
            assert [int(x) for _, labels in loader for x in labels] == order
            assert loader.epoch == epoch + 1
        loader.seek(1, 2)
        assert [int(x) for _, labels in loader for x in labels] == order[4:]
    parts = []
    for shard_id in (0, 1):
        shard = {"shard_id": shard_id, "num_shards": 2, "batch_size": 1}
        with dcm.train_loader(source, **{**options, **shard}) as loader:
            parts.append([[int(labels[0]) for _, labels in loader] for _ in range(2)])
    assert parts == [[[5, 0, 7]] * 2, [[2, 2, 6]] * 2]


def test_labels_between_commas_are_no_names(root: Path) -> None:
    path = root / "list.txt"
    path.write_text("a/0.png 0,3\nb/1.png 3,1\n")
    source = dcm.find_source(path, targets="labels")
    assert (source.classes, source.num_classes) == (None, 4)
    with pytest.raises(ValueError, match="several labels are read with find_source"):
        dcm.find_source(path)
    path.write_text("a/0.png cat\nb/1.png dog\n")  # a split with names, and targets for all
    given = {"a/0.png": [0.5], "b/1.png": [1.5]}
    assert yielded(path, targets=given) == {0: [0.5], 1: [1.5]}
    path.unlink()


def test_a_label_far_too_large_takes_no_memory(root: Path) -> None:
    path = root / "list.txt"
    path.write_text("a/0.png 0\nb/1.png 1000000000\n")
    with pytest.raises(ValueError, match="at most 10,000,000 numbers in different rows"):
        dcm.find_source(path, targets="labels")
    path.unlink()


def test_a_recipe_that_smooths_labels_needs_a_mix(root: Path) -> None:
    given = dict(zip(NAMES, LABELS, strict=True))
    with pytest.raises(ValueError, match="`mix` must be given with `targets`: recipe 'deit'"):
        dcm.train_loader(root, targets=given, recipe="deit", **{**SMALL, "batch_size": 8})


def test_check_knows_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(3):
        Image.new("RGB", (9, 9), (20 * i,) * 3).save(flat / f"{i}.png")
    (flat / "1.png").write_bytes((flat / "1.png").read_bytes()[:40])
    ages = tmp_path / "ages.csv"
    ages.write_text("file,age\n" + "\n".join(f"{i}.png,{i}.5" for i in range(3)))
    assert main(["check", str(flat)]) == 1  # of no use without targets, and said
    assert "holds images itself" in capsys.readouterr().err.replace("\n", " ")
    assert main(["check", str(flat), "--targets", str(ages)]) == 3
    assert "1.png" in capsys.readouterr().out


def test_several_labels_in_a_list_of_mxnet(root: Path) -> None:
    path = root / "list.lst"
    path.write_text("0\t1.000000\t0.000000\ta/0.png\n1\t2.000000\t2.000000\tb/1.png\n")
    assert yielded(path, targets="labels") == {0: [1.0, 1.0, 0.0], 1: [0.0, 0.0, 1.0]}
    path.unlink()


def test_a_csv_is_no_list_of_targets(root: Path) -> None:
    path = root / "wrong.csv"
    path.write_text("a/0.png,1,2\n")
    with pytest.raises(ValueError, match="must be given as `targets`, and the folder"):
        dcm.find_source(path, targets="rows")
    path.unlink()
