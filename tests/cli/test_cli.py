"""The command: what it prints, the picture it writes, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix.cli import demo
from dali_cutmix.cli import main as cli

CELL, MARGIN, CAPTION = 96, 8, 44
SMALL = ["--device", "cpu", "--size", str(CELL), "--batch-size", "16", "--images", "6"]
SMALL += ["--columns", "3"]


def picture(path: Path) -> Any:
    return np.asarray(Image.open(path)).astype(int)


def cells(sheet: Any) -> list[Any]:
    """The six images of the grid, without captions."""
    step_y, step_x = CELL + CAPTION + MARGIN, CELL + MARGIN
    corners = [(MARGIN + r * step_y, MARGIN + c * step_x) for r in range(2) for c in range(3)]
    return [sheet[y : y + CELL, x : x + CELL] for y, x in corners]


def test_the_demo_shows_real_mixed_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mixed.png"
    assert cli.main(["demo", *SMALL, "--out", str(out), "--epochs", "1"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith("device: cpu (")
    assert "5 classes, 12 batches of 16 an epoch" in text
    assert "images/s" in text
    assert "partner's class" in text
    assert f"{out.name}" in text.replace("\n", "")
    assert picture(out).shape == (2 * (CELL + CAPTION + MARGIN) + MARGIN, 3 * 104 + MARGIN, 3)
    # Of what else there are loaders for.
    assert {path.name for path in tmp_path.iterdir()} == {
        *("mixed.png", "mixed-boxes.png", "mixed-masks.png", "mixed-volumes.png"),
    }
    for name in ("boxes", "masks"):
        assert picture(tmp_path / f"mixed-{name}.png").shape == (2 * 104 + 8, 4 * 104 + 8, 3)
    assert picture(tmp_path / "mixed-volumes.png").shape == (4 * (96 + 4), 3 * (96 + 4), 3)


def test_a_picture_has_no_empty_columns(photos: str, tmp_path: Path) -> None:
    out = tmp_path / "mixed.png"
    assert cli.main(["show", *SMALL, "--data", photos, "--columns", "9", "--out", str(out)]) == 0
    assert picture(out).shape == (CELL + CAPTION + 2 * MARGIN, 6 * 104 + MARGIN, 3)


@pytest.mark.parametrize("names", [["GridMix"], ["fmix", "smoothmix", "cutout"], ["mosaic"]])
def test_any_method_is_shown(
    names: list[str], photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["show", *SMALL, "--data", photos, "--out", str(tmp_path / "mixed.png"), "--json"]
    assert cli.main([*argv, "--recipe", "deit", "--method", *names]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    if names == ["mosaic"]:
        assert any(sum(share > 0 for share in sample["target"]) > 2 for sample in samples)
    else:
        assert all(sample["box"][2:] == [0, 0] for sample in samples)
        assert any(sample["lam"] < 1 for sample in samples)
    with pytest.raises(SystemExit):
        cli.main([*argv, "--method", "nomix"])
    assert cli.main([*argv, "--method", *names, "--cutmix-alpha", "0.5"]) == 1
    assert "`cutmix_alpha` must be left out with `methods`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_picture_is_cut_where_the_report_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The same stream without mixing shows the originals: they differ inside the boxes only.
    sheets = {}
    for prob in ("0", "1"):
        out = tmp_path / f"{prob}.png"
        assert cli.main(["show", *SMALL, "--prob", prob, "--out", str(out), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        sheets[prob] = cells(picture(out))
    assert report["classes"] == ["astronaut", "cat", "coffee", "galaxies", "rocket"]
    found = 0
    for sample, original, mixed in zip(report["samples"], sheets["0"], sheets["1"], strict=True):
        y, x, h, w = sample["box"]
        assert sample["lam"] == pytest.approx(1 - h * w / CELL**2, abs=1e-6)
        assert sum(sample["target"]) == pytest.approx(1, abs=1e-5)
        changed = (original != mixed).any(axis=2)
        outside = changed.copy()
        outside[y : y + h, x : x + w] = False
        assert not outside.any()
        if h * w:
            assert changed[y : y + h, x : x + w].mean() > 0.5
            found += 1
    assert found >= 3


@pytest.mark.parametrize(
    ("partner", "words"), [("same", "of the same class"), ("other", "of another class")]
)
def test_the_share_that_found_a_partner_is_told(
    partner: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["show", *SMALL, "--partner", partner, "--out", str(tmp_path / "mixed.png")]
    assert cli.main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert cli.main([*arguments, "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    found = sum(sample["paired"] for sample in samples)
    assert last == f"{found} of {len(samples)} found a partner {words}"
    assert all(sample["paired"] or sample["lam"] == 1 for sample in samples)


def caption(
    target: list[float],
    label: int,
    partner: int,
    *,
    lam: float = 0.5,
    smoothing: float = 0.0,
    classes: tuple[str, ...] = ("cat", "dog", "fox"),
) -> list[str]:
    shares = demo._shares(np.array(target, np.float32), label, smoothing)
    pixels = np.zeros((1, 1, 3), np.uint8)
    sample = demo.MixedSample(
        pixels, np.array(target, np.float32), lam, (0, 0, 1, 1), label, partner, shares
    )
    return demo.caption_lines(sample, [*classes])


def test_the_captions_are_the_labels_with_their_shares() -> None:
    assert caption([0.25, 0, 0.75], 0, 2) == ["0.25 cat", "0.75 fox"]
    assert caption([0.25, 0, 0.75], 2, 0) == ["0.75 fox", "0.25 cat"]
    assert caption([0, 1, 0], 1, 0, lam=1.0) == ["1.00 dog"]
    assert caption([0.3, 0.3, 0.4], 1, 2) == ["0.30 dog", "0.40 fox", "0.30 cat"]  # four images


def test_two_images_of_one_class_are_told_from_one_image() -> None:
    assert caption([0, 1, 0], 1, 1, lam=0.3) == ["dog + dog"]
    assert caption([0, 1, 0], 1, 1, lam=1.0) == ["1.00 dog"]


def test_captions_are_without_smoothing() -> None:
    assert caption([0.2, 0.2, 0.6], 2, 2, lam=1.0, smoothing=0.6) == ["1.00 fox"]
    assert caption([0.2, 0.4, 0.4], 2, 1, smoothing=0.6) == ["0.50 fox", "0.50 dog"]
    assert caption([1 / 3] * 3, 2, 1, smoothing=1.0) == ["1.00 fox"]


def test_names_like_numbers_are_in_quotes() -> None:
    classes = ("0", "1.5", "n01440764")
    assert caption([0.25, 0.75, 0], 0, 1, classes=classes) == ["0.25 '0'", "0.75 '1.5'"]
    assert caption([0, 0, 1], 2, 0, lam=1.0, classes=classes) == ["1.00 n01440764"]


def test_samples_that_share_their_draws_are_of_several_batches(photos: str) -> None:
    options: dict[str, Any] = {"device": "cpu", "size": 32, "batch_size": 16, "num_threads": 1}
    boxes = {}
    for mode in ("elem", "batch"):
        mix = dcm.MixConfig(num_classes=5, mode=mode)
        boxes[mode] = {sample.box for sample in demo.mixed_samples(photos, mix, 8, **options)}
    assert len(boxes["elem"]) > 5
    assert len(boxes["batch"]) > 5
    swapped = dcm.MixConfig(num_classes=5, mode="pair", partner="flip")
    found = [sample.box for sample in demo.mixed_samples(photos, swapped, 16, **options)]
    assert len({*found}) > 8


def test_a_picture_of_a_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for names in (["Mosaic"], ["CutMix", "MixUp"]):
        out = tmp_path / f"{names[0]}.png"
        arguments = ["--method", *names, "--out", str(out), "--json"]
        assert cli.main(["show", *SMALL, *arguments]) == 0
        samples = json.loads(capsys.readouterr().out)["samples"]
        most = max(sum(share > 0 for share in sample["target"]) for sample in samples)
        assert (most > 2) == (names == ["Mosaic"])
    assert cli.main(["show", *SMALL, "--method", "CutMix", "--cutmix-alpha", "2"]) == 1
    assert "`cutmix_alpha` must be left out with `methods`" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["show", "--method", "NoMix"])


def test_the_demo_on_data_of_ones_own(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own.png"
    arguments = ["demo", *SMALL, "--data", photos, "--out", str(out), "--epochs", "1", "--json"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["device"] == "cpu"
    assert report["images_per_second"] > 0
    assert report["pictures"] == [str(out)]  # of one's own data alone
    assert len(report["samples"]) == 6
    assert set(report["samples"][0]) == {"class", "partner_class", "lam", "box"}
    assert photos in captured.err.replace("\n", "")


def test_class_names_are_printed_as_they_are(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("[red]", "a [b] c"):
        shutil.copytree(Path(photos) / "cat", tmp_path / "data" / name)
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out.png")]
    assert cli.main(["demo", *SMALL, *arguments, "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "[red]" in out
    assert "a [b] c" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/no/where"], "`source` must be an existing folder, got '/no/where'"),
        (["--cutmix-alpha", "-1"], "`cutmix_alpha` must be 0 or in [1e-6, 1e6], got -1.0"),
        (["--mode", "all"], '`mode` must be one of "elem", "batch"'),
        (["--out", "/no/where/mixed.png"], "`--out` must be in an existing folder"),
        (["--out", "mixed.psd"], "`--out` must end in .png, .jpg or another picture format"),
        (["--out", "folder.png"], "`--out` must be a file, got the folder 'folder.png'"),
        (["--seed", "99999999999999999999"], "`seed` must be at most 9223372036854775807"),
        (["--out", "mixed.exe"], "`--out` must end in .png, .jpg or another picture format"),
        (["--images", "0"], "`--images` must be at least 1, got 0"),
        (["--images", "1001"], "`--images` must be at most 1000, got 1001"),
        (
            ["--images", "200", "--columns", "1", "--size", "32", "--out", "tall.webp"],
            "`--out` must be a format that holds 48 x 16808 pixels, such as .png",
        ),
        (["--columns", "0"], "`--columns` must be at least 1, got 0"),
        (["--batch-size", "1"], "`batch_size` must be at least 2 for mixing, got 1"),
        (["--batch-size", "500"], "`batch_size` must be at most the 200 images"),
        (["--size", "0"], "`size` must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("command", ["demo", "show"])
def test_wrong_use_is_one_line_and_writes_nothing(
    command: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert cli.main([command, *SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dali-cutmix: ")
    assert message in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == ["folder.png"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--device", "gpu"]) == 1
    assert '`device` must be "cpu" on this machine, got "gpu"' in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "mixed_samples", interrupted)
    assert cli.main(["show", *SMALL]) == 130
    assert capsys.readouterr().err == "interrupted\n"


INTERRUPTS = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
from dali_cutmix.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_modules_are_loaded_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTS], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_locale_without_unicode_is_no_error() -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "dali_cutmix", "recipes"]
    done = subprocess.run(
        command, env={**os.environ, **plain}, capture_output=True, text=True, check=True
    )
    assert "train_loader(source, recipe=NAME, ?) uses one;" in done.stdout


def test_a_warning_points_at_the_users_line(photos: str, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    options = "batch_size=4, mix=dcm.MixConfig(), device='cpu', size=32"
    script.write_text(f"import dali_cutmix as dcm\n\n\ndcm.train_loader({photos!r}, {options})\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert f"{script}:4: UserWarning: " in done.stderr


@pytest.mark.slow
def test_the_installed_command_runs_from_another_folder(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("dali-cutmix")
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run(
        [command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == dcm.__version__
    done = subprocess.run([command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: dali-cutmix" in done.stderr


# recipes


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    text = capsys.readouterr().out
    for recipe in dcm.recipes.RECIPES.values():
        assert f"{recipe.name}  {recipe.title}\n" in text
    assert "mixup 0.1, cutmix 1, RandAugment, 3 repeats, 224 bicubic, bce, 300 epochs\n" in text


def test_a_recipe_is_printed_with_its_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert cli.main(["recipes", "deit"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    deit = dcm.recipes.get("deit")
    assert rows.keys() >= deit.sources.keys()
    for name, source in deit.sources.items():
        assert rows[name].rstrip().endswith(source)
    assert "mixup_alpha=0.8, prob=1, switch_prob=0.5, mode=batch" in rows["mix"]
    assert "RandomErasing(prob=0.25, mode=pixel" in rows["erase"]


def test_recipes_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed.keys() == dcm.recipes.RECIPES.keys()
    assert cli.main(["recipes", "torchvision-v2", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one == listed["torchvision-v2"]
    assert one["augment"] == [{"type": "TrivialAugmentWide"}]
    assert one["mix"]["partner"] == "roll"
    assert one["sources"]["repeats"] == "pytorch/vision issue 3995, comment 1013906621"


def test_an_unknown_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "rsb-a4"]) == 1
    assert "`recipe` must be one of cutmix-paper, rsb-a1" in capsys.readouterr().err


# index


@pytest.fixture
def shards(photos: str, tmp_path: Path) -> list[Path]:
    """Two tars in a folder of their own."""
    folder = tmp_path / "shards"
    folder.mkdir()
    files = sorted(Path(photos).rglob("*.jpg"))[::10]
    paths = [folder / f"{number}.tar" for number in range(2)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for i, file in enumerate(files[number::2]):
                (tmp_path / "label").write_text(str(i))
                tar.add(file, f"{i:03d}.jpg")
                tar.add(tmp_path / "label", f"{i:03d}.cls")
    return paths


def test_missing_indexes_are_made(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = shards[0].parent, tmp_path / "indexes"
    assert cli.main(["index", str(shards[0])]) == 0
    assert capsys.readouterr().out.split() == [f"{shards[0]}.idx"]
    assert cli.main(["index", str(folder), "--json"]) == 0  # the other one
    assert json.loads(capsys.readouterr().out) == {"made": [f"{shards[1]}.idx"]}
    assert cli.main(["index", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("nothing to do, 2 there already, which fit\n")
    Path(f"{shards[1]}.idx").unlink()
    assert cli.main(["index", str(folder)]) == 0
    assert capsys.readouterr().err.endswith("1 index file(s) made, 1 there already, which fit\n")
    assert cli.main(["index", *map(str, shards), "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["0.tar.idx", "1.tar.idx"]


def test_what_needs_no_index_is_said(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    for source, what in ((photos, "folder of classes"), (str(tmp_path / "list.txt"), "list")):
        assert cli.main(["index", source]) == 0
        captured = capsys.readouterr()
        assert captured.out == ""
        said = f"nothing to do: {source} is a {what}, which needs no index\n"
        assert captured.err.endswith(said)
        assert cli.main(["index", source, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"made": []}


def test_a_damaged_shard_is_named(shards: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:5000])
    assert cli.main(["index", str(shards[0].parent)]) == 1
    error = capsys.readouterr().err
    assert str(shards[1]) in error
    assert not Path(f"{shards[1]}.idx").exists()
    assert cli.main(["index", "/no/where"]) == 1
    assert "`source` must name files that exist" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recipe_is_shown_and_options_go_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smallest = []
    for options in ([], ["--label-smoothing", "0"]):
        out = str(tmp_path / "deit.png")
        assert cli.main(["show", *SMALL, "--recipe", "deit", *options, "--out", out, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        smallest.append(min(min(sample["target"]) for sample in report["samples"]))
    assert smallest == pytest.approx([0.02, 0.0])  # 0.1 / 5 classes
    assert cli.main(["show", *SMALL, "--recipe", "none"]) == 1
    assert "`recipe` must be one of" in capsys.readouterr().err
