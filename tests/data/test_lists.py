"""Lists of images as people have them: what is read of each layout, and what is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.data import verification
from dali_cutmix.data.sources import unchecked_source

# The files that are there, with the level of their pixels.
LEVELS = {
    "a/1.jpg": 20,
    "a/2.jpg": 40,
    "b/1.jpg": 60,
    "b/my img 3.jpg": 80,
    "é/1.jpg": 100,
    "lists/x.jpg": 120,
    "5": 140,
}
A, A2, B, BLANKS, ACCENT = list(LEVELS)[:5]
TWO = [(A, 0), (B, 1)]


class Read(NamedTuple):
    """A layout that is read: its text, and (path, label) of each image."""

    text: str
    got: list[tuple[str, int]]
    file: str = "list.txt"
    encoding: str = "utf-8"
    classes: tuple[str, ...] | None = None
    options: dict[str, Any] = {}  # noqa: RUF012
    num_classes: int = 2


class Refused(NamedTuple):
    """A layout that is refused: its text, and what is said."""

    text: str
    match: str
    file: str = "list.txt"
    encoding: str = "utf-8"
    options: dict[str, Any] = {}  # noqa: RUF012
    error: type[Exception] = ValueError


NAMED = ("cat", "dog")
READ: dict[str, Read] = {
    "plain": Read("a/1.jpg 0\nb/1.jpg 1\n", TWO),
    "no line break at the end": Read("a/1.jpg 0\nb/1.jpg 1", TWO),
    "line breaks of Windows": Read("a/1.jpg 0\r\nb/1.jpg 1\r\n", TWO),
    "of old Macs": Read("a/1.jpg 0\rb/1.jpg 1\r", TWO),
    "a byte order mark": Read("a/1.jpg 0\r\nb/1.jpg 1\r\n", TWO, encoding="utf-8-sig"),
    "of PowerShell": Read("a/1.jpg 0\r\nb/1.jpg 1\r\n", TWO, encoding="utf-16"),
    "the other UTF-16": Read("\ufeffa/1.jpg 0\nb/1.jpg 1\n", TWO, encoding="utf-16-be"),
    "marks in the middle": Read("\ufeffa/1.jpg 0\n\ufeffb/1.jpg 1\n", TWO),
    "empty lines": Read("\na/1.jpg 0\n\n  \nb/1.jpg 1\n\n", TWO),
    "tabs": Read("a/1.jpg\t0\nb/my img 3.jpg\t1\n", [(A, 0), (BLANKS, 1)]),
    "a tab and blanks": Read("a/1.jpg \t 0\nb/my img 3.jpg\t 1\n", [(A, 0), (BLANKS, 1)]),
    "several blanks": Read("a/1.jpg   0\nb/my img 3.jpg  1\n", [(A, 0), (BLANKS, 1)]),
    "blanks around": Read("  a/1.jpg 0  \n b/1.jpg 1\t\n", TWO),
    "quotes": Read('"b/my img 3.jpg" 1\n"a/1.jpg"\t0\n', [(BLANKS, 1), (A, 0)]),
    "other alphabets": Read("é/1.jpg 0\nb/1.jpg 1\n", [(ACCENT, 0), (B, 1)]),
    "a header": Read("path label\na/1.jpg 0\nb/1.jpg 1\n", TWO),
    "a header with tabs": Read("Image_Path\tClass ID\na/1.jpg\t0\nb/1.jpg\t1\n", TWO),
    "absolute": Read("D/a/1.jpg 0\nD/b/1.jpg 1\n", TWO),
    "absolute, of another folder": Read(
        "D/a/1.jpg 0\nD/b/1.jpg 1\n", TWO, "lists/l.txt", options={"file_root": "D"}
    ),
    "absolute and in quotes": Read('"D/a/1.jpg" 0\n"D/b/1.jpg" 1\n', TWO),
    "dots": Read("./a/1.jpg 0\na/../b/1.jpg 1\n", TWO),
    "a sign": Read("a/1.jpg +0\nb/1.jpg +1\n", TWO),
    "an offset": Read("a/1.jpg 1\nb/1.jpg 2\n", TWO, options={"label_offset": -1}),
    "gaps": Read("a/1.jpg 3\nb/1.jpg 900\n", [(A, 3), (B, 900)], num_classes=901),
    "no ending": Read("5 0\nb/1.jpg 1\n", [("5", 0), (B, 1)]),
    "repeated": Read(
        "a/1.jpg 0\na/1.jpg 0\nb/1.jpg 1\n", [(A, 0), *TWO], options={"repeated": True}
    ),
    "another ending": Read("a/1.jpg 0\nb/1.jpg 1\n", TWO, "l.train", options={"kind": "list"}),
    # CSV
    "a CSV": Read("a/1.jpg,0\nb/1.jpg,1\n", TWO, "l.csv"),
    "with a header": Read("path,label\na/1.jpg,0\nb/1.jpg,1\n", TWO, "l.csv"),
    "of other columns too": Read(
        ",label,score,filename\n0,0,.9,a/1.jpg\n1,1,.8,b/1.jpg\n", TWO, "l.csv"
    ),
    "of Excel": Read(
        'Path;Label\r\na/1.jpg;0\r\n"b/my img 3.jpg";1\r\n',
        [(A, 0), (BLANKS, 1)],
        "L.CSV",
        "utf-8-sig",
    ),
    "with blanks": Read('a/1.jpg, 0\n"b/my img 3.jpg", 1\n', [(A, 0), (BLANKS, 1)], "l.csv"),
    "with names": Read(
        'path,class\na/1.jpg,"tench, Tinca"\nb/1.jpg,cat\n',
        [(A, 1), (B, 0)],
        "l.csv",
        classes=("cat", "tench, Tinca"),
    ),
    # MXNet
    "of MXNet": Read(
        "0\t0.000000\ta/1.jpg\n1\t1.000000\tb/my img 3.jpg\n", [(A, 0), (BLANKS, 1)], "l.lst"
    ),
    "of MXNet, without points": Read("7\t0\ta/1.jpg\n9\t1\tb/1.jpg\n", TWO, "l.lst"),
    "of MXNet, a number for a name": Read(
        "0\t0.0\t5\n1\t1.0\tb/1.jpg\n", [("5", 0), (B, 1)], "l.lst"
    ),
    "of MXNet by name alone": Read("a/1.jpg 0\nb/1.jpg 1\n", TWO, "l.lst"),
    # Names of classes
    "names": Read("a/1.jpg dog\nb/1.jpg cat\n", [(A, 1), (B, 0)], classes=NAMED),
    "names with blanks": Read(
        "a/1.jpg\ttench, Tinca\nb/1.jpg\tcat\n", [(A, 1), (B, 0)], classes=("cat", "tench, Tinca")
    ),
    "names below a header": Read("file class\na/1.jpg cat\nb/1.jpg dog\n", TWO, classes=NAMED),
    "names that classes numbers": Read(
        "a/1.jpg dog\nb/1.jpg cat\n",
        [(A, 2), (B, 1)],
        classes=("ape", "cat", "dog"),
        options={"classes": ["ape", "cat", "dog"]},
        num_classes=3,
    ),
    "names numbered in the list": Read(
        '# classes: ["dog", "cat"]\na/1.jpg dog\nb/1.jpg cat\n', TWO, classes=("dog", "cat")
    ),
    "some of the classes": Read(
        "a/1.jpg dog\n", [(A, 1)], classes=NAMED, options={"classes": list(NAMED)}
    ),
}
MISSING = FileNotFoundError
REFUSED: dict[str, Refused] = {
    "nothing": Refused("", 'at least one line "path label", got none'),
    "empty lines": Refused("\n\n", 'at least one line "path label", got none'),
    "Latin 1": Refused(
        "é/1.jpg 0\n", "must be UTF-8 text: .* Save it as UTF-8", encoding="latin-1"
    ),
    "UTF-16 without a mark": Refused(
        "a/1.jpg 0\n", "line 1: .*save it as UTF-8", encoding="utf-16-le", error=MISSING
    ),
    "no label": Refused("a/1.jpg\nb/1.jpg\n", "line 1: .*, which has no label"),
    "no label and blanks": Refused("b/my img 3.jpg\n", "line 1: .*, which has no label"),
    "no label later": Refused("a/1.jpg 0\nb/1.jpg\n", "line 2: .*, which has no label"),
    "label first": Refused("0 a/1.jpg\n1 b/1.jpg\n", "line 1: .*; the label comes last"),
    "of MXNet by another name": Refused("0\t0.0\ta/1.jpg\n", "line 1: .*MXNet.* from \\*.lst"),
    "numbers of MXNet by another name": Refused(
        "0\t0.0\t1\n", "line 1: .*MXNet.* from \\*.lst", error=MISSING
    ),
    "commas": Refused("a/1.jpg,0\nb/1.jpg,1\n", "line 1: .*commas are read from \\*.csv"),
    "commas and blanks": Refused(
        "a/1.jpg, 0\n", "line 1: .*commas are read from \\*.csv", error=MISSING
    ),
    "commas and blanks in names": Refused(
        "b/my img 3.jpg,0\n", "line 1: .*commas are read from \\*.csv"
    ),
    "a comment": Refused("# by me\na/1.jpg 0\n", "line 1: .*comments are not read", error=MISSING),
    "a short comment": Refused("a/1.jpg 0\n#end\n", "line 2: .*comments are not read"),
    "a comment later": Refused("a/1.jpg 0\n# x\n", "line 2: .*comments are not read"),
    "backslashes": Refused("a\\1.jpg 0\n", "line 1: .*not by a backslash", error=MISSING),
    "a no-break space": Refused("a/1.jpg\xa01\n", "line 1: .*no-break space"),
    "a full-width digit": Refused("a/1.jpg \uff11\n", "line 1: .*integer label"),
    "another form of Unicode": Refused(
        "e\u0301/1.jpg 0\n", "line 1: .*there by a name in Unicode's NFC", error=MISSING
    ),
    "another folder": Refused("D/a/1.jpg 0\n", "line 1: must lie in .*file_root", "lists/l.txt"),
    "the parent": Refused("../a/1.jpg 0\n", "line 1: must lie in .*file_root", "lists/l.txt"),
    "twice": Refused("a/1.jpg 0\na/1.jpg 0\n", "line 2: .*as in line 1; .*repeated=True"),
    "twice in quotes": Refused('a/1.jpg 0\n"a/1.jpg" 0\n', "line 2: .*as in line 1"),
    "negative": Refused("a/1.jpg -1\n", "line 1: .*at least 0, got -1"),
    "another header": Refused(
        "id y\na/1.jpg 0\n", "line 1: 'D/id' must be a file.*names of the columns", error=MISSING
    ),
    "floats": Refused("a/1.jpg 0.37\nb/1.jpg 2.5\n", "line 1: .*integer label"),
    "whole floats": Refused("a/1.jpg 0.0\n", "line 1: .*integer label"),
    "several labels": Refused(
        "a/1.jpg 0 1\n", "line 1: .*several labels are read with find_source", error=MISSING
    ),
    "several after tabs": Refused(
        "a/1.jpg\t0\t1\n", "line 1: .*several labels are read with find_source", error=MISSING
    ),
    "one-hot": Refused(
        "a/1.jpg 1 0 0\n", "line 1: .*several labels are read with find_source", error=MISSING
    ),
    "several of MXNet": Refused("0\t1.0\t0.0\ta/1.jpg\n", "line 1: .*integer label", "l.lst"),
    "a float of MXNet": Refused("0\t0.5\ta/1.jpg\n", "line 1: .*integer label", "l.lst"),
    "another ending": Refused("a/1.jpg 0\n", '\\*.csv.*kind="list"', "l.train"),
    # CSV
    "three columns without names": Refused(
        "a/1.jpg,0,1\n", "line 1: must have two columns, .*'a/1.jpg', '0', '1'", "l.csv"
    ),
    "two columns of labels": Refused(
        "path,class,label\na/1.jpg,0,0\n", "line 1: must have two columns", "l.csv"
    ),
    "a short row": Refused("path,label\na/1.jpg\n", "line 2: .*which has no label", "l.csv"),
    "a float in a CSV": Refused("path,label\na/1.jpg,0.5\n", "line 2: .*integer label", "l.csv"),
    "an open quote": Refused('a/1.jpg,0\n"b/1.jpg,1\n', "line 2: ", "l.csv"),
    # Names of classes
    "a number among names": Refused(
        "a/1.jpg cat\nb/1.jpg 1\n", "line 2: .*name of a class, as the first line has"
    ),
    "a name among numbers": Refused("a/1.jpg 0\nb/1.jpg cat\n", "line 2: .*integer label"),
    "names that classes lacks": Refused(
        "a/1.jpg cat\nb/1.jpg ape\n",
        "line 2: .*name of a class as its label, got 'ape', not in `classes`",
        options={"classes": list(NAMED)},
    ),
    "names and an offset": Refused(
        "a/1.jpg cat\n",
        "`label_offset` must be 0 where labels are names",
        options={"label_offset": 1},
    ),
    "names with blanks and no tab": Refused(
        "a/1.jpg tabby cat\n", "line 1: .*separated from the path by a tab", error=MISSING
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lists").resolve()
    for name, level in LEVELS.items():
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (level,) * 3).save(root / name, "JPEG")
    return root


def found(root: Path, layout: Read | Refused) -> Any:
    path = root / layout.file
    path.write_bytes(layout.text.replace("D/", f"{root}/").encode(layout.encoding))
    options = {k: str(root) if v == "D" else v for k, v in layout.options.items()}
    return dcm.find_source(path, **options)


@pytest.mark.parametrize("name", READ)
def test_what_is_read(root: Path, name: str) -> None:
    layout = READ[name]
    source = found(root, layout)
    names = [str((Path(source.file_root) / file).relative_to(root)) for file in source.files]
    assert list(zip(names, source.labels, strict=True)) == layout.got
    assert source.classes == layout.classes
    assert source.num_classes == layout.num_classes


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_what_is_said(root: Path, name: str) -> None:
    layout = REFUSED[name]
    with pytest.raises(layout.error, match=layout.match.replace("D/", f"{root}/")):
        found(root, layout)


def test_labels_that_begin_at_1_are_read_with_a_warning(root: Path) -> None:
    with pytest.warns(UserWarning, match="begin at 1, .*label_offset=-1"):
        source = found(root, Read("a/1.jpg 1\nb/1.jpg 2\n", []))
    assert source.labels == (1, 2)


@pytest.mark.parametrize("name", ["tabs", "of Excel", "of MXNet", "names", "of PowerShell"])
def test_the_loaders_yield_what_is_read(root: Path, name: str) -> None:
    source = found(root, READ[name])
    look: dict[str, Any] = {"size": 8, "resize": 8, "mean": (0, 0, 0), "std": (1, 1, 1)}
    with dcm.val_loader(source, batch_size=2, device="cpu", num_threads=1, **look) as loader:
        ((images, labels),) = loader
    levels = [round(float(image.mean() * 255)) for image in images]
    got = list(zip(levels, labels.tolist(), strict=True))
    assert got == [(LEVELS[path], label) for path, label in READ[name].got]


def test_validation_gets_the_labels_of_training_by_name(root: Path) -> None:
    options: dict[str, Any] = {"device": "cpu", "size": 8, "num_threads": 1, "batch_size": 2}
    (root / "train.txt").write_text("a/1.jpg cat\na/2.jpg cow\nb/1.jpg dog\n")
    (root / "val.csv").write_text("path,label\na/1.jpg,dog\n")
    with dcm.train_loader(root / "train.txt", mix=None, **options) as train:
        assert train.classes == ("cat", "cow", "dog")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with dcm.val_loader(root / "val.csv", like=train) as val:
                assert [labels.tolist() for _, labels in val] == [[2]]
    (root / "val.csv").write_text("path,label\na/1.jpg,eel\n")
    with pytest.raises(ValueError, match=r"line 2: .*'eel', not in `classes`"):
        dcm.find_source(root / "val.csv", classes=train.classes)


def test_check_reads_the_same_layouts_and_writes_a_list_with_names(root: Path) -> None:
    (root / "named.csv").write_text("path,class\nb/1.jpg,dog\na/1.jpg,cat\na/9.jpg,cat\n")
    checked = verification.verify(unchecked_source(root / "named.csv"))
    assert checked.good == ((B, 1), (A, 0))
    assert [finding.problem for finding in checked.problems] == ["missing"]
    verification.write_list(checked, str(root / "clean.txt"))
    clean = dcm.find_source(root / "clean.txt")
    assert (clean.files, clean.labels, clean.classes) == ((B, A), (1, 0), NAMED)
