"""Data and results on file systems that refuse, fill up or change: a clear error, or right work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli import main as cli
from dali_cutmix.data import sources
from tests.data.test_sources import tar_samples, write_tar

STRANGE = [
    "two words",
    "größe 画像",
    "new\nline",
    "tab\tand 'quotes\"",
    "-rf",
    "{1..3}[a]*",
    "%s$HOME`id`",
    "#a;b&c|d",
    "n" * 200,
]
SMALL = ["--device", "cpu", "--size", "8", "--batch-size", "16", "--images", "4"]

unprivileged = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture(scope="module")
def pictures(photos: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """20 small JPEGs, of 4 each from 5 photographs."""
    root = tmp_path_factory.mktemp("small")
    made = []
    for k, name in enumerate(sorted(os.listdir(photos))):
        for i, file in enumerate(sorted(os.listdir(os.path.join(photos, name)))[:4]):
            made.append(root / f"{k}{i}.jpg")
            with Image.open(os.path.join(photos, name, file)) as image:
                image.resize((30, 20)).save(made[-1])
    return made


@pytest.fixture
def folder(pictures: list[Path], tmp_path: Path) -> Path:
    """An ImageFolder of 5 classes with 4 pictures each."""
    for i, picture in enumerate(pictures):
        (tmp_path / "data" / f"c{i // 4}").mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "data" / f"c{i // 4}" / f"{i}.jpg")
    return tmp_path / "data"


def val(source: Any, **options: Any) -> dcm.Loader:
    given = {"batch_size": 4, "size": 16, "device": "cpu", "num_threads": 1, **options}
    return dcm.val_loader(source, **given)


def train(source: Any, **options: Any) -> dcm.Loader:
    given = {"batch_size": 4, "size": 16, "device": "cpu", "num_threads": 1, **options}
    return dcm.train_loader(source, **given)


def content(loader: dcm.Loader) -> list[tuple[bytes, int]]:
    with loader:
        return [
            (image.numpy().tobytes(), int(label))
            for images, labels in loader
            for image, label in zip(images, labels, strict=True)
        ]


def files_under(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# --- names and links


def test_classes_and_files_of_strange_names(pictures: list[Path], tmp_path: Path) -> None:
    # The same 20 pictures under plain names, sorted alike, are the reference.
    for i, name in enumerate(sorted(STRANGE)):
        (tmp_path / "strange" / name).mkdir(parents=True)
        (tmp_path / "plain" / f"{i:02d}").mkdir(parents=True)
        for k in range(2):
            picture = pictures[(2 * i + k) % len(pictures)]
            shutil.copy(picture, tmp_path / "strange" / name / f"{k} {name[:100]}.jpg")
            shutil.copy(picture, tmp_path / "plain" / f"{i:02d}" / f"{k}.jpg")
    strange = val(tmp_path / "strange")
    assert strange.classes == tuple(sorted(STRANGE))
    assert content(strange) == content(val(tmp_path / "plain"))


@pytest.mark.parametrize("name", STRANGE)
def test_a_root_of_a_strange_name(folder: Path, name: str) -> None:
    root = folder.parent / name
    expected = content(val(folder))
    folder.rename(root)
    assert content(val(root)) == expected


@pytest.mark.parametrize("name", STRANGE)
def test_a_shard_and_a_list_of_a_strange_name(folder: Path, name: str) -> None:
    root = folder.parent / name
    root.mkdir()
    files = [(file, int(file.parent.name[1:])) for file in sorted(folder.rglob("*.jpg"))]
    write_tar(root / f"{name}.tar", tar_samples(files))
    text = "".join(f"{file.relative_to(folder)} {label}\n" for file, label in files)
    (root / f"{name}.txt").write_text(text)
    expected = sorted(content(val(folder)))
    assert sorted(content(val(root / f"{name}.tar", num_classes=5))) == expected
    listed = dcm.find_source(root / f"{name}.txt", file_root=folder)
    assert sorted(content(val(listed))) == expected
    assert files_under(root) == sorted([f"{name}.tar", f"{name}.tar.idx", f"{name}.txt"])


@pytest.mark.parametrize("name", STRANGE)
def test_a_picture_of_a_strange_name(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / f"{name}.png"
    assert cli.main(["show", *SMALL, "--data", str(folder), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == str(out)
    Image.open(out).verify()


def test_symbolic_links_are_followed(folder: Path) -> None:
    expected = content(val(folder))
    linked = folder.parent / "linked"
    linked.mkdir()
    for place, name in enumerate(sorted(os.listdir(folder))):
        if place % 2:  # a link to a class, or a class of links
            (linked / name).symlink_to(folder / name)
            continue
        (linked / name).mkdir()
        for file in (folder / name).iterdir():
            (linked / name / file.name).symlink_to(os.path.relpath(file, linked / name))
    (folder.parent / "root").symlink_to(linked)
    assert content(val(folder.parent / "root")) == expected


def test_a_link_to_nothing_is_named(folder: Path) -> None:
    (folder / "c0" / "a.jpg").symlink_to("gone.jpg")
    with pytest.raises((ValueError, FileNotFoundError), match=r"c0/a\.jpg"):
        content(val(folder))


def test_a_folder_that_is_called_like_an_image_is_no_image(folder: Path) -> None:
    expected = content(val(folder))
    (folder / "c1" / "album.jpg").mkdir()
    assert content(val(folder)) == expected


def test_a_circle_of_links_ends(folder: Path) -> None:
    (folder / "c5").symlink_to("c5")
    expected = "c5"
    try:
        assert len(content(val(folder))) == 20
    except (OSError, ValueError) as error:
        expected = str(error)
    assert "c5" in expected


# --- read-only and without permission


def test_data_are_only_read(folder: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in [folder, *folder.rglob("*")]}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    mix = dcm.MixConfig(mixup_alpha=1.0)
    with train(folder, mix=mix, batch_size=20) as loader:
        assert len(list(loader)) == 1
    assert len(content(val(folder))) == 20
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in before}
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o755)


def test_no_room_for_an_index_beside_the_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The system's answer for a read-only file system, which root gets too.
    tar = tmp_path / "a.tar"
    write_tar(tar, tar_samples([(file, 0) for file in sorted(folder.rglob("*.jpg"))]))
    before = files_under(tmp_path)
    real = open

    def read_only(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode) & set("wxa+") and str(file).startswith(str(tar)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))
        return real(file, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", read_only)
        with pytest.raises(PermissionError, match=r"a\.tar\.idx.*--out DIR.*index_dir"):
            val(tar, num_classes=1)
        assert files_under(tmp_path) == before
        sources.index(tar, tmp_path / "elsewhere")
        found = dcm.find_source(tar, index_dir=tmp_path / "elsewhere")
        assert len(content(val(found, num_classes=1))) == 20


def test_a_file_where_a_folder_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    tar = tmp_path / "a.tar"
    write_tar(tar, tar_samples([(next(folder.rglob("*.jpg")), 0)]))
    assert cli.main(["index", str(tar), "--out", str(file)]) == 1
    assert "file" in capsys.readouterr().err
    out = str(file / "x.png")
    assert cli.main(["show", *SMALL, "--data", str(folder), "--out", out]) == 1
    assert "`--out` must be in an existing folder" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert not (tmp_path / "a.tar.idx").exists()


@unprivileged
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_what_may_not_be_read_is_named(folder: Path, mode: int) -> None:
    (folder / "c2").chmod(mode)
    try:
        with pytest.raises((OSError, ValueError), match="c2"):
            val(folder)
    finally:
        (folder / "c2").chmod(0o755)
    file = next((folder / "c3").iterdir())
    file.chmod(0o000)
    with pytest.raises((OSError, ValueError), match=file.name):
        content(val(folder))


# --- what disappears


@pytest.mark.parametrize("make", [train, val])
def test_a_file_deleted_during_the_run_is_named(folder: Path, make: Any) -> None:
    with make(folder, batch_size=2, prefetch_queue_depth=1) as loader:
        next(iter(loader))
        for file in folder.rglob("*.jpg"):
            file.unlink()

        def go_on() -> None:
            for _ in range(3):
                list(loader)

        with pytest.raises((ValueError, OSError), match=r"\.jpg|must hold images"):
            go_on()


def test_a_folder_deleted_before_the_loader_is_made(folder: Path) -> None:
    source = dcm.find_source(folder)
    shutil.rmtree(folder)
    with pytest.raises((ValueError, OSError), match=r"data|source"):
        val(source)


def test_a_shard_deleted_or_cut_short_between_epochs(folder: Path, tmp_path: Path) -> None:
    files = [(file, 0) for file in sorted(folder.rglob("*.jpg"))]
    for k in range(2):
        write_tar(tmp_path / f"{k}.tar", tar_samples(files[k * 10 : k * 10 + 10]))
    found = dcm.find_source(tmp_path / "{0..1}.tar", make_indexes=True)
    (tmp_path / "1.tar").unlink()
    with pytest.raises((ValueError, OSError), match=r"1\.tar"):
        content(val(found, num_classes=1))


# --- a full disk


def small_disk(argv: list[str], most: int) -> subprocess.CompletedProcess[str]:
    """Runs the command where no file may be larger than some bytes: a write fails half-way."""
    code = (
        "import resource, sys; from dali_cutmix.cli.main import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most})); sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_picture_is_written_whole_or_not_at_all(folder: Path, kind: str) -> None:
    out = folder.parent / f"old.{kind}"
    for old in (None, b"the last run's"):
        if old is not None:
            out.write_bytes(old)
        before = files_under(folder.parent)
        done = small_disk(["show", *SMALL, "--data", str(folder), "--out", str(out)], 300)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("dali-cutmix: ")
        assert out.name in done.stderr
        assert "Traceback" not in done.stderr
        assert files_under(folder.parent) == before
        assert old is None or out.read_bytes() == old


@pytest.mark.slow
def test_an_index_is_written_whole_or_not_at_all(folder: Path) -> None:
    tar = folder.parent / "a.tar"
    files = [(file, 0) for file in sorted(folder.rglob("*.jpg"))]
    write_tar(tar, tar_samples(files))
    before = files_under(folder.parent)
    done = small_disk(["index", str(tar)], 100)
    assert done.returncode == 1
    assert "dali-cutmix: " in done.stderr
    assert "a.tar.idx" in done.stderr
    assert files_under(folder.parent) == before


@pytest.mark.slow
def test_a_report_that_cannot_be_written_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dali_cutmix.cli", "recipes", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode != 0
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
