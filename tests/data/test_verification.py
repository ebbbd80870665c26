"""Damage: every damaged file is found, none that Pillow rejects gets through, nothing is lost."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli import main as cli
from dali_cutmix.data import damage, sources, verification
from dali_cutmix.data.cache import open_cache
from dali_cutmix.pipelines import imagenet
from tests.data import test_sources
from tests.support import damaged

WHOLE = damaged.whole_images()[:24]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "dali-cutmix"


@pytest.fixture
def data(photos: str, tmp_path: Path) -> Path:
    """A copy of the photographs, 16 in each of 5 classes."""
    shutil.copytree(photos, tmp_path / "data")
    return tmp_path / "data"


def rejected_by_pillow(file: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            Image.open(io.BytesIO(file)).load()
        except Exception:  # it raises many types
            return True
    return False


# One image


def test_whole_images_are_whole() -> None:
    assert [damage.verify_image(image).problem for image in damaged.whole_images()] == [None] * 30


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_pillow_rejects_has_a_problem() -> None:
    # benchmarks/reliability.py does this with thousands, and with DALI's decoders.
    found = Counter()
    for kind, file in damaged.corpus(420, seed=1):
        verdict = damage.verify_image(file)
        assert verdict.problem is None or verdict.problem in damage.PROBLEMS
        assert verdict.problem is not None or not rejected_by_pillow(file), (kind, verdict)
        found[kind] += verdict.problem is not None
    certain = {"header cut", "cut", "huge", "empty", "text", "zero size"}
    assert {kind for kind in damaged.KINDS if found[kind] == 30} >= certain
    assert found["block"] >= 27  # a lost block of a disk
    assert found["marker"] >= 27


def as_bytes(form: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.open(io.BytesIO(damaged.whole_images()[0])).convert(mode)
    return damaged.encoded(image, form, **options)


def deep_png() -> bytes:
    values = np.linspace(0, 65535, 30 * 40).reshape(30, 40).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def exif(orientation: int) -> Any:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    ("file", "notes"),
    [
        (as_bytes("JPEG"), ()),
        (as_bytes("JPEG", "L"), ("grayscale",)),
        (as_bytes("JPEG", "CMYK"), ("CMYK",)),
        (as_bytes("JPEG", exif=exif(6)), ("rotated by EXIF",)),
        (as_bytes("JPEG", exif=exif(1)), ()),
        (as_bytes("PNG", "RGBA"), ("transparent",)),
        (as_bytes("PNG", "P"), ("palette",)),
        (deep_png(), ("grayscale", "more than 8 bits")),
        (
            as_bytes("WEBP", save_all=True, append_images=[Image.new("RGB", (160, 120))]),
            ("transparent", "animated"),
        ),
    ],
)
def test_what_is_unusual_is_a_note(file: bytes, notes: tuple[str, ...]) -> None:
    assert damage.verify_image(file) == (None, "", notes)


@pytest.mark.parametrize(
    ("file", "problem", "detail"),
    [
        (b"", "empty", ""),
        (b"no image at all", "no image", "begins with b'no image'"),
        (as_bytes("GIF"), "wrong type", "a GIF"),
        (as_bytes("JPEG")[:2000], "truncated", "Premature end of JPEG file"),
        (as_bytes("JPEG")[:30], "truncated", ""),
        (b"\xff\xd8\xff" + bytes(50), "damaged", "the header of a JPEG that goes wrong or ends"),
        (as_bytes("PNG")[:3000], "truncated", ""),
        (
            as_bytes("JPEG").replace(b"\xff\xc0", b"\xff\xc9"),
            "wrong type",
            "a JPEG with frame 0xC9",
        ),
    ],
)
def test_problems_are_told_apart(file: bytes, problem: str, detail: str) -> None:
    verdict = damage.verify_image(file)
    assert verdict.problem == problem
    assert verdict.detail.startswith(detail)


def test_the_number_of_pixels_is_limited() -> None:
    assert damage.verify_image(as_bytes("JPEG"), max_pixels=160 * 120).problem is None
    verdict = damage.verify_image(as_bytes("JPEG"), max_pixels=160 * 120 - 1)
    assert verdict == ("too large", "160 x 120 pixels", ())


# A data set

DAMAGE = {
    "cat/002.jpg": b"",
    "coffee/000.jpg": as_bytes("JPEG")[:2000],
    "coffee/001.jpg": b"no image at all",
    "coffee/007.jpg": as_bytes("GIF"),
}
KINDS = ["empty", "truncated", "no image", "wrong type"]


def put_damage(root: Path) -> None:
    for name, content in DAMAGE.items():
        (root / name).write_bytes(content)


def verify(root: Path | str, **options: Any) -> verification.Verification:
    return verification.verify(sources.unchecked_source(root), **options)


def test_a_folder_is_verified(data: Path) -> None:
    put_damage(data)
    (data / "cat" / "003.jpg").write_bytes(as_bytes("JPEG", "L"))
    (data / "cat" / "notes.txt").write_text("mine")
    (data / "cat" / "folder.jpg").mkdir()
    os.symlink(data / "nothing", data / "galaxies" / "link.jpg")
    (data / "nothing here").mkdir()
    calls: list[tuple[int, int]] = []
    found = verify(data, progress=lambda *done: calls.append(done))
    assert [(f.name, f.problem) for f in found.problems if f.problem != "missing"] == [
        *zip(DAMAGE, KINDS, strict=True),
        ("nothing here", "empty class"),
    ]
    assert [f.name for f in found.problems if f.problem == "missing"] == ["galaxies/link.jpg"]
    assert Counter(f.problem for f in found.notes) == {"not read": 1, "grayscale": 1}
    assert found.samples == found.scanned == 81
    assert calls == [(i, 81) for i in range(1, 82)]
    assert len(found.good) == 76
    assert all(label == sorted(p.name for p in data.iterdir()).index(name.split("/")[0])
               for name, label in found.good)  # fmt: skip


def test_only_what_changed_is_read_again(data: Path, cache: Path) -> None:
    put_damage(data)
    first = verify(data)
    again = verify(data)
    assert (first.scanned, again.scanned) == (80, 0)
    assert again.problems == first.problems
    (data / "cat" / "002.jpg").write_bytes(as_bytes("JPEG"))
    mended = verify(data)
    assert mended.scanned == 1
    assert mended.problems == first.problems[1:]
    assert verify(data, fresh=True).scanned == 80
    assert verify(data, max_pixels=100).scanned == 80  # of another checker
    for place in cache.glob("*.sqlite"):
        place.write_bytes(b"no data base")
    assert verify(data).scanned == 80


def test_a_file_that_changes_while_it_is_read_is_read_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, whole = data / "cat" / "002.jpg", (data / "cat" / "002.jpg").read_bytes()
    verify_image = damage.verify_image

    def changed_meanwhile(read: bytes, **options: Any) -> damage.Verdict:
        if read == whole:
            victim.write_bytes(b"")
        return verify_image(read, **options)

    monkeypatch.setattr(damage, "verify_image", changed_meanwhile)
    assert not verify(data).problems
    (problem,) = verify(data).problems
    assert (problem.name, problem.problem) == ("cat/002.jpg", "empty")


def test_nothing_is_remembered_where_nothing_can_be_written(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / "cat" / "000.jpg"))  # a file, not a folder
    for _ in range(2):
        with pytest.warns(UserWarning, match="not kept for the next time: .*Set XDG_CACHE_HOME"):
            assert verify(data).scanned == 80


def test_what_is_found_when_the_disk_is_full_is_found() -> None:
    with open_cache("another", "1") as opened:
        opened.put("a", "state", ["x"])
        opened.save()
        opened._connection.execute("PRAGMA max_page_count = 1")
        with pytest.warns(UserWarning, match="not kept for the next time: .*full"):
            opened.put("c", "state", "x" * 50_000)
        opened.put("d", "state", "x" * 50_000)
        assert opened.get("a", "state") == ["x"]
    with open_cache("another", "1") as opened:
        assert opened.get("a", "state") == ["x"]


def test_a_cache_that_may_only_be_read_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(data).scanned == 80
    real = sqlite3.connect

    def read_only(path: str) -> sqlite3.Connection:
        return real(path if path == ":memory:" else f"file:{path}?mode=ro", uri=True)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    (data / "cat" / "000.jpg").write_bytes((data / "cat" / "001.jpg").read_bytes())
    with pytest.warns(UserWarning, match="not kept for the next time: .*readonly"):
        assert verify(data).scanned == 1


def test_a_list_is_verified_to_its_end(data: Path, tmp_path: Path) -> None:
    put_damage(data)
    lines = ["cat/000.jpg 0", "cat/002.jpg 0", "cat/000.jpg 1", "gone.jpg 1", "../x.jpg 2"]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "cat/001.jpg -4", "cat/004.jpg 7", "x"]))
    source = sources.unchecked_source(tmp_path / "list.txt", file_root=data)
    found = verification.verify(source, num_classes=5)
    assert Counter(f.problem for f in found.problems) == {
        **{"entry": 4, "missing": 1, "empty": 1, "label": 1}
    }
    assert found.good == (("cat/000.jpg", 0),)
    faults = " ".join(f.detail for f in found.problems)
    for part in ("as in line 1", "must lie in", "must be at least 0, got -4", "7, not in [0, 5)"):
        assert part in faults


def write_tar(path: Path, samples: list[tuple[bytes, str]]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, (image, label) in enumerate(samples):
            for extension, content in (("jpg", image), ("cls", label.encode())):
                info = tarfile.TarInfo(f"{number:03d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """24 samples; 3 damaged, 5 with no label, 7 with a label out of range."""
    path = tmp_path / "train.tar"
    samples = [(damaged.whole_images()[i], str(i % 4)) for i in range(24)]
    samples[3] = (samples[3][0][:1500], "3")
    samples[5] = (samples[5][0], "x")
    samples[7] = (samples[7][0], "9")
    write_tar(path, samples)
    return path


def test_shards_are_verified(tar: Path) -> None:
    found = verify(str(tar), num_classes=4)
    assert [(f.name, f.problem) for f in found.problems] == [
        (f"{tar} (003.jpg)", "truncated"),
        (f"{tar} (005.jpg)", "label"),
        (f"{tar} (007.jpg)", "label"),
    ]
    assert found.bad == {str(tar): (3, 5, 7)}
    assert (found.samples, found.scanned) == (24, 24)
    assert verify(str(tar), num_classes=4).scanned == 0
    # An index that lacks a sample, and a shard that is cut.
    sources.index(tar)
    index = Path(f"{tar}.idx")
    index.write_text(index.read_text().replace("v1.2 24", "v1.2 23").rsplit("\n", 2)[0] + "\n")
    (problem, *_) = verify(str(tar), num_classes=4).problems
    assert problem.problem == "index"
    assert "it has 23 entries, the shard 24" in problem.detail
    tar.write_bytes(tar.read_bytes()[:20000])
    (problem,) = verify(str(tar)).problems
    assert problem.problem == "shard"
    assert str(tar) in problem.detail


# Loaders that skip

SKIPPING = """
import sys, warnings
import dali_cutmix as dcm
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    options = {"batch_size": 4, "size": 16, "device": "cpu", "num_threads": 1}
    loader = dcm.train_loader(sys.argv[1], on_error="skip", num_classes=4, **options)
for warning in caught:
    print(warning.message)
labels = [len(labels) for epoch in range(2) for _, labels in loader]
loader.seek(1, 2)  # reads the index once more
print(sum(labels), len(next(loader.rest())[1]), loader.skipped)
"""


def test_a_tar_is_read_without_the_damaged_where_no_cache_can_be_written(
    tar: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    where = {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-c", SKIPPING, str(tar)]
    done = subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"'train\.tar\.\w+\.idx' is kept in '.*/temporary/dali-cutmix-\w+' as long as this process "
        r"runs: .*Set XDG_CACHE_HOME to a folder",
        done.stdout,
    )
    assert "40 4 (" in done.stdout
    assert os.listdir(tmp_path / "temporary") == []


def train(source: Any, **options: Any) -> dcm.Loader:
    arguments: dict[str, Any] = {"batch_size": 8, "size": 16, "device": "cpu", "on_error": "skip"}
    return dcm.train_loader(source, **{**arguments, **options})


def labels_of(loader: dcm.Loader) -> list[int]:
    return [label for _, labels in loader for label in labels.tolist()]


def test_damaged_files_are_left_out_and_named(data: Path) -> None:
    put_damage(data)
    with pytest.warns(
        UserWarning, match=r"4 of 80 samples are left out: cat/002.jpg \(empty\), co"
    ):
        loader = train(data, batch_size=4)
    expected = [f"{name} ({kind})" for name, kind in zip(DAMAGE, KINDS, strict=True)]
    assert loader.skipped == tuple(expected)
    assert loader.classes is not None
    classes = {name: i for i, name in enumerate(loader.classes)}
    counts = {classes["cat"]: 15, classes["coffee"]: 13}
    assert Counter(labels_of(loader)) == {**dict.fromkeys(range(5), 16), **counts}
    with pytest.warns(UserWarning, match="4 of 80"):
        val = dcm.val_loader(data, batch_size=32, size=16, device="cpu", on_error="skip")
    assert Counter(labels_of(val)) == {**dict.fromkeys(range(5), 16), **counts}


def test_the_same_damage_gives_the_same_stream(data: Path, tmp_path: Path) -> None:
    put_damage(data)
    other = tmp_path / "other"
    shutil.copytree(data, other)
    streams, states = [], []
    for root in (data, other):
        with pytest.warns(UserWarning, match="left out"):
            loader = train(root, mix=dcm.MixConfig(), batch_size=16)
        next(iter(loader))
        states.append(loader.state_dict())
        streams.append(
            [torch.cat([images.flatten(), rows.flatten()]) for images, rows in loader.rest()]
        )
        last = loader
    assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))
    last.load_state_dict(states[0])  # the state of one fits the other
    assert torch.equal(next(iter(last))[0].flatten(), streams[0][0][: 16 * 3 * 16 * 16])
    # With more damage it is another data set.
    (other / "cat" / "000.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="5 of 80"):
        loader = train(other, mix=dcm.MixConfig(), batch_size=16)
    with pytest.raises(ValueError, match="must come from a loader with the same options and data"):
        loader.load_state_dict(states[0])


def test_without_damage_skipping_changes_nothing(data: Path) -> None:
    plain, skipping = train(data, on_error="raise"), train(data)
    assert skipping.skipped == ()
    for (a, b), (c, d) in zip(plain, skipping, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    skipping.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("kind", ["webdataset", "tfrecord", "recordio"])
def test_damaged_samples_of_shards_are_left_out(kind: str, tar: Path, tmp_path: Path) -> None:
    bad = {3, 5, 7}
    path = tar
    if kind != "webdataset":
        bad = {3}
        images = [image[: 1500 if i in bad else None] for i, image in enumerate(WHOLE)]
    if kind == "tfrecord":
        path = tmp_path / "x.tfrecord"
        records = [
            {"image/encoded": image, "image/class/label": i % 4} for i, image in enumerate(images)
        ]
        test_sources.write_tfrecord(path, records)
    elif kind == "recordio":
        path = tmp_path / "x.rec"
        for i, image in enumerate(images):
            (tmp_path / f"{i}.jpg").write_bytes(image)
        samples = [(tmp_path / f"{i}.jpg", i % 4) for i in range(24)]
        test_sources.write_recordio(path, samples)
    options: dict[str, Any] = {"batch_size": 5, "size": 16, "num_classes": 4, "device": "cpu"}
    with pytest.warns(UserWarning, match=f"{len(bad)} of 24 samples are left out"):
        loader = dcm.val_loader(str(path), on_error="skip", **options)
    assert len(loader.skipped) == len(bad)
    for _ in range(2):
        assert Counter(labels_of(loader)) == Counter(i % 4 for i in {*range(24)} - bad)


def test_a_shard_that_is_cut_cannot_be_skipped(tar: Path) -> None:
    sources.index(tar)
    tar.write_bytes(tar.read_bytes()[:20000])
    with pytest.raises(ValueError, match=r"train.tar"):
        train(str(tar), num_classes=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_loaders_get_through_a_damaged_data_set(tmp_path: Path) -> None:
    # Whatever is decoded, Pillow would not have rejected it.
    good = 0
    for number, (_, file) in enumerate(damaged.corpus(280, seed=2)):
        folder = tmp_path / "data" / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03d}.jpg").write_bytes(file)
        good += damage.verify_image(file).problem is None
    for make in (dcm.train_loader, dcm.val_loader):
        with pytest.warns(UserWarning, match=f"{280 - good} of 280 samples are left out"):
            loader = make(tmp_path / "data", batch_size=1, size=32, device="cpu", on_error="skip")
        assert len(labels_of(loader)) == good
        skipped = {name.split(" ")[0] for name in loader.skipped}
        for path in (tmp_path / "data").rglob("*.jpg"):
            if rejected_by_pillow(path.read_bytes()):
                assert str(path.relative_to(tmp_path / "data")) in skipped


def test_dali_decodes_what_has_no_problem() -> None:
    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipe(file: str) -> Any:
        return imagenet.decode(fn.readers.file(files=[file])[0], "cpu")

    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        for _, content in damaged.corpus(140, seed=3):
            if damage.verify_image(content).problem is None:
                Path(file.name).write_bytes(content)
                assert pipe(file.name).run()[0].shape()[0][2] == 3


# The command


def check(*arguments: str) -> int:
    return cli.main(["check", *arguments])


def test_the_command_reports_and_writes_a_list(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_damage(data)
    (data / "cat" / "line\nbreak.jpg").write_bytes(b"no image")
    report, clean = str(tmp_path / "report.json"), str(tmp_path / "clean.txt")
    assert check(str(data), "--report", report, "--write-list", clean) == 3
    text = capsys.readouterr().out
    assert f"81 images of {data} (folder), 81 looked at in " in text
    assert "2 no image: is of no known image format\n    cat/line\\nbreak.jpg: begins with" in text
    assert "1 truncated: ends too early\n    coffee/000.jpg: Premature end of JPEG file\n" in text
    found = json.loads(Path(report).read_text())
    assert found["counts"] == {"no image": 2, "empty": 1, "truncated": 1, "wrong type": 1}
    assert found["problems"][1]["name"] == "cat/line\nbreak.jpg"
    source = dcm.find_source(clean, file_root=data)
    assert source.size == 76
    with dcm.train_loader(source, batch_size=76, size=16, device="cpu") as loader:
        assert len(labels_of(loader)) == 76
    for name in [*DAMAGE, "cat/line\nbreak.jpg"]:
        os.unlink(data / name)
    assert check(str(data)) == 0
    assert capsys.readouterr().out.endswith("no problems\n")
    assert check(str(data), "--json") == 0
    assert json.loads(capsys.readouterr().out)["looked_at"] == 0


def test_files_that_are_not_read_are_listed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(22):
        (data / "cat" / f"{number:02d}.gif").write_bytes(as_bytes("GIF"))
    report = str(tmp_path / "report.json")
    assert check(str(data), "--report", report) == 0
    printed = capsys.readouterr().out
    assert "notes: 22 not read\n    cat/00.gif: no image by its name\n" in printed
    assert "    cat/19.gif: no image by its name\n    and 2 more, see --report\n" in printed
    assert "cat/20.gif" not in printed
    notes = json.loads(Path(report).read_text())["notes"]
    assert [note["name"] for note in notes] == [f"cat/{number:02d}.gif" for number in range(22)]
    assert check(str(data), "--json") == 0
    assert json.loads(capsys.readouterr().out)["notes"] == notes


def test_wrong_usage_is_refused(
    data: Path, tar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("/no/where",): "`source` must name files that exist",
        (str(data), "--report", str(data)): "`--report` must be a file, got the folder",
        (str(data), "--write-list", "/no/x.txt"): "`--write-list` must be in an existing folder",
        (str(tar), "--write-list", str(tmp_path / "x.txt")): "`--write-list` must be left out for",
        ("s3://bucket/x.tar",): "`source` must be on this machine",
        (str(data), "--max-pixels", "0"): "`max_pixels` must be at least 1",
    }
    for arguments, message in cases.items():
        assert check(*arguments) == 1
        assert message in capsys.readouterr().err
    (data / "cat" / "line\nbreak.jpg").write_bytes(as_bytes("JPEG"))
    assert check(str(data), "--write-list", str(tmp_path / "x.txt")) == 1
    assert "a list cannot hold the name 'cat/line\\nbreak.jpg'" in capsys.readouterr().err
    assert not (tmp_path / "x.txt").exists()


@pytest.mark.slow
def test_an_interrupted_check_goes_on(tmp_path: Path, cache: Path) -> None:
    image = as_bytes("JPEG")
    for label in range(2):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for number in range(6000):
            (tmp_path / "data" / str(label) / f"{number}.jpg").write_bytes(image)
    # Tests in the background inherit an ignored SIGINT.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dali_cutmix.cli"]
    command += ["check", str(tmp_path / "data"), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def remembered() -> int:
        for path in cache.glob("*.sqlite"):
            try:
                with sqlite3.connect(path) as connection:
                    return int(connection.execute("SELECT COUNT(*) FROM seen").fetchone()[0])
            except sqlite3.OperationalError:
                pass
        return 0

    deadline = time.monotonic() + 60
    while remembered() == 0:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; the same command goes on from here" in error
    assert "Traceback" not in error
    before = remembered()
    assert 0 < before < 12000
    found = verify(tmp_path / "data")
    assert found.scanned == 12000 - before
    assert not found.problems
