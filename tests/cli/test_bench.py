"""dali-cutmix bench: results are valid, it fails and stops as it should, tables are true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import resources
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from rich.console import Console

import dali_cutmix as dcm
from benchmarks import tables
from dali_cutmix.cli import main as cli
from dali_cutmix.cli.bench import (
    command,
    data,
    loaders,
    mixing,
    profile,
    report,
    results,
    training,
)
from dali_cutmix.cli.bench.results import Result, Row, in_turn

SCHEMA = json.loads(resources.files("dali_cutmix.cli.bench").joinpath("schema.json").read_text())
RESULTS = sorted((tables.ROOT / "benchmarks" / "results").glob("*/bench-*.json"))
QUICK = ["--quick", "--device", "cpu", "--size", "48"]


def valid(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    jsonschema.validate(found, SCHEMA)
    return found


def measured(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(row["group"], row["name"]) for row in found["rows"] if row["values"]}


# Every kind runs


@pytest.mark.slow
def test_a_profile(photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, plot = tmp_path / "profile.json", tmp_path / "profile.png"
    argv = ["bench", *QUICK, "--data", photos, "--rounds", "2", "--out", str(out)]
    argv += ["--threads", "1", "2", "--batch-size", "16", "8", "--plot", str(plot)]
    assert cli.main(argv) == 0
    found = valid(out)
    stages = ("read", "decode", "augment", "normalise", "mix", "hand over")
    assert measured(found) == {
        *(("stages", stage) for stage in stages),
        *(("num_threads", "1"), ("num_threads", "2")),
        *(("batch_size", "16"), ("batch_size", "8")),
        *(("recommended", "as it was"), ("recommended", "recommended")),
    }
    assert found["complete"]
    assert all(len(row["values"]) == 2 for row in found["rows"])
    shares = [stage["share"] for stage in found["findings"]["stages"]]
    assert sum(shares) == pytest.approx(1, abs=0.001)
    printed = capsys.readouterr().out
    assert "too short for figures and advice" in printed
    assert "train_loader" not in printed
    found["settings"]["quick"] = False
    said = "\n".join(report.summary(found))
    assert "bottleneck: " in said
    # Which batch size is recommended is a matter of two short measurements.
    loader = (
        rf"dcm\.train_loader\({re.escape(repr(photos))}, batch_size=(8|16), size=48, device='cpu'"
    )
    assert re.search(loader, said)
    with Image.open(plot) as picture:
        assert picture.size[0] > 500


def test_the_recommended_line_is_python_that_runs(photos: str) -> None:
    base = {"source": photos, "batch_size": 16, "mix": {"num_classes": 7}, "recipe": None}
    line = report.line_of_code({**base, "device": "cpu", "size": 32})
    names: dict[str, Any] = {}
    exec("import dali_cutmix as dcm", names)
    with eval(line, names) as loader:
        assert next(iter(loader))[1].shape == (16, 7)


def test_the_stages_are_those_of_the_loader(photos: str) -> None:
    options = {"source": photos, "batch_size": 16, "device": "cpu", "size": 32}
    always = ["read", "decode", "augment", "normalise"]
    assert profile.stage_names({**options, "mix": None}) == [*always, "hand over"]
    recipe = {"recipe": "deit", "repeats": 1}
    assert profile.stage_names(options | recipe) == [*always, "mix", "hand over"]


@pytest.mark.slow
def test_mixing_alone(tmp_path: Path) -> None:
    out = tmp_path / "mix.json"
    assert cli.main(["bench", "mix", *QUICK, "--batch-size", "16", "--out", str(out)]) == 0
    found = valid(out)
    absent = {row["name"] for row in found["rows"] if row["note"].startswith("absent: needs ")}
    expected = set(mixing.row_names()) - absent
    assert not absent & {*mixing.PARTS, *mixing.CONFIGS, *mixing.BY_MIX}
    assert measured(found) == {(g, n) for g in ("time", "CPU time") for n in expected}


@pytest.mark.slow
def test_other_kinds_in_a_process_of_their_own(photos: str, tmp_path: Path) -> None:
    out, program = (
        tmp_path / "out.json",
        "import sys; from dali_cutmix.cli.main import main; main()",
    )
    for kind, names in (("loader", ["torchvision"]), ("train", [])):
        argv = ["bench", kind, *QUICK, "--data", photos, "--batch-size", "16", "--threads", "1"]
        argv += ["--only", "dali_cutmix", *names, "--out", str(out), "--json"]
        done = subprocess.run(
            [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True
        )
        found = valid(out)
        assert json.loads(done.stdout) == found
        ceiling = ["synthetic data (ceiling)"] if kind == "train" else []
        assert measured(found) == {(kind, name) for name in [*ceiling, "dali_cutmix", *names]}


# Data


def test_generated_images_are_made_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[int] = []
    root = data.generated(25, lambda: made.append(1))
    assert len(made) == 25
    files = sorted(Path(root).glob("*/*.jpg"))
    assert [len(list(Path(root, f"class000{i}").iterdir())) for i in (0, 1)] == [20, 5]
    size = sum(file.stat().st_size for file in files) / len(files)
    assert 85_000 < size < 135_000  # as in ImageNet
    assert data.generated(25, lambda: made.append(1)) == root
    assert len(made) == 25

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.generated(26, interrupted)
    assert [path.name for path in Path(root).parent.iterdir()] == [Path(root).name]


@pytest.mark.slow
def test_twenty_images_are_enough(tmp_path: Path) -> None:
    for i in range(20):
        folder = tmp_path / "images" / f"{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (i, 2 * i, 3 * i)).save(folder / f"{i}.jpg")
    out = tmp_path / "out.json"
    argv = ["bench", "--data", str(tmp_path / "images"), "--device", "cpu", "--size", "48"]
    assert cli.main([*argv, "--rounds", "1", "--seconds", "0.01", "--out", str(out)]) == 0
    found = valid(out)
    assert found["settings"]["base"]["batch_size"] == 16
    groups = {row["group"] for row in found["rows"]}
    assert groups >= {"stages", "num_threads", "prefetch_queue_depth", "batch_size", "layout"}


@pytest.mark.parametrize(
    ("options", "expected"), [([], 5), (["--num-classes", "7"], 7), (["--recipe", "deit"], 5)]
)
def test_the_code_has_the_classes_of_the_data(
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: int,
) -> None:
    def measured(base: dict[str, Any], *_: Any, result: Result, **__: Any) -> None:
        result.findings["recommended"] = profile.as_plain({**base, "source": "DATA"})

    monkeypatch.setattr(profile, "run", measured)
    argv = ["bench", *QUICK, "--data", photos, "--out", str(tmp_path / "out.json"), *options]
    assert cli.main(argv) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert f"num_classes={expected})" in report.line_of_code(found["findings"]["recommended"])
    assert found["settings"]["num_classes"] == expected


@pytest.mark.parametrize("kind", ["loader", "train"])
def test_whole_loaders_have_the_classes_of_the_data(
    kind: str, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []
    module = {"loader": loaders, "train": training}[kind]
    monkeypatch.setattr(module, "run", lambda job, **_: jobs.append(job))
    out = str(tmp_path / "out.json")
    for options, expected in (([], 5), (["--num-classes", "9"], 9)):
        argv = ["bench", kind, *QUICK, "--data", photos, "--device", "cpu", "--out", out, *options]
        assert cli.main(argv) == 0
        assert jobs.pop().num_classes == expected
        assert json.loads(Path(out).read_text())["settings"]["num_classes"] == expected


# Bad input, interrupts


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "/nowhere"], "`source` must name files that exist"),
        (["--batch-size", "1000000"], "`batch_size` must be at most"),
        (["--batch-size", "16", "1"], "`batch_size` must be at least 2"),
        (["--threads", "2", "0"], "`num_threads` must be at least 1"),
        (["--prefetch", "0"], "`prefetch_queue_depth` must be at least 1"),
        (["--rounds", "0"], "`rounds` must be at least 1"),
        (["--seconds", "0"], "`seconds` must be above 0"),
        (["--seconds", "nan"], "`seconds` must be"),
        (["--size", "0"], "`size` must be at least 1"),
        (["--recipe", "x"], "`recipe` must be one of"),
        (["--num-classes", "2"], "`num_classes` must be at least the 5"),
        (["--plot", "plot.txt"], "`--plot` must end in"),
        (["--out", "/nowhere/x.json"], "`--out` must be in an existing folder"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profile, "run", lambda *_, **__: pytest.fail("it was measured"))
    assert cli.main(["bench", *QUICK, "--data", photos, *argv]) == 1
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_peer_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("loader", "train", "detection"):
        assert cli.main(["bench", kind, *QUICK, "--only", "nobody"]) == 1
        assert "`--only` must be among dali_cutmix, " in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.torch.cuda, "is_available", lambda: False)
    for kind in command.KINDS:
        assert cli.main(["bench", kind, "--quick", "--device", "gpu"]) == 1
        assert '`device` must be "cpu"' in capsys.readouterr().err


def test_an_empty_folder_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "class").mkdir(parents=True)
    for kind in ("profile", "loader"):
        assert cli.main(["bench", kind, *QUICK, "--data", str(tmp_path / "data")]) == 1
        assert "`source` must hold images" in capsys.readouterr().err


def test_an_interrupt_writes_what_there_is(
    photos: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[int] = []

    def rate(*_: Any) -> float:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return 100.0 + len(calls)

    monkeypatch.setattr(profile, "_rate", rate)
    out = tmp_path / "out.json"
    assert cli.main(["bench", *QUICK, "--data", photos, "--out", str(out)]) == 130
    found = valid(out)
    assert not found["complete"]
    assert len(measured(found)) == 4
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "interrupted: what is here was measured" in printed.out


# Results


def test_each_is_measured_once_a_round_and_a_failure_stops_no_other() -> None:
    rows = [Row("g", name, "ms") for name in "abc"]
    order: list[str] = []

    def measure(row: Row) -> float:
        order.append(row.name)
        if row.name == "b" and len(order) > 3:
            raise RuntimeError("first line\nthe reason")
        return float(len(order))

    in_turn(rows, 3, measure)
    assert "".join(order) == "abc" + "bca" + "ca"
    assert rows[1].values == [2.0]
    assert rows[1].note == "failed: the reason"
    assert len(rows[0].values) == len(rows[2].values) == 3


def test_medians_quartiles_and_ratios() -> None:
    row, other = Row("g", "a", "ms"), Row("g", "b", "ms")
    assert row.median is row.quartiles is row.relative_to(other) is None
    row.values, other.values = [1.0, 2.0, 3.0, 4.0, 10.0], [1.0, 1.0, 1.0, 1.0, 2.0]
    assert row.median == 3
    assert row.quartiles == (2, 4)
    assert row.relative_to(other) == 3  # of 1, 2, 3, 4, 5


def test_what_a_stage_adds_is_its_cost() -> None:
    rows = [
        Row("stages", name, "ms", [value]) for name, value in zip("abc", (2, 5, 4), strict=True)
    ]
    assert profile._costs(rows) == [
        {"stage": "a", "ms": 2, "share": 0.4},
        {"stage": "b", "ms": 3, "share": 0.6},
        {"stage": "c", "ms": 0.0, "share": 0.0},
    ]


def test_only_what_is_faster_beyond_chance_and_changes_no_batch_is_recommended() -> None:
    result = Result("profile", {})
    options = {"num_threads": 2, "prefetch_queue_depth": 2, "dtype": "float32"}
    values = {
        "num_threads": {2: [100, 101, 102], 4: [150, 151, 152]},
        "prefetch_queue_depth": {2: [100, 101, 102], 3: [80, 106, 120]},  # faster by chance
        "dtype": {"float32": [100, 101, 102], "float16": [200, 201, 202]},  # other batches
    }
    for name, rows in values.items():
        for value, rates in rows.items():
            given = [float(rate) for rate in rates]
            result.rows.append(Row(name, str(value), "images/s", given, options={name: value}))
    assert profile._best(options, result) == {"num_threads": 4}


def test_the_package_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(results.metadata, "version", version)
    assert results.environment()["versions"] == {"dali-cutmix": dcm.__version__}


def test_a_result_names_the_commit_of_its_checkout() -> None:
    if not (tables.ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    assert results.environment()["commit"]


def test_there_are_results() -> None:
    assert {path.name for path in RESULTS} >= {
        *("bench-profile.json", "bench-mix.json", "bench-loader.json")
    }


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_results_are_valid_complete_and_of_no_one_in_particular(path: Path) -> None:
    found = valid(path)
    assert found["complete"]
    assert not found["settings"]["quick"]
    assert found["environment"]["commit"]
    assert "/home" not in path.read_text()
    assert "/root" not in path.read_text()
    assert "/tmp" not in path.read_text()
    hardware = path.parent.name
    assert (found["environment"]["gpu"] is None) == (hardware == "cpu")


def test_the_tables_of_the_pages_are_those_of_the_results() -> None:
    texts = {page: page.read_text() for page in tables.PAGES}
    places = [match[2] for text in texts.values() for match in tables.PLACE.finditer(text)]
    assert {*places} == {"bench", "startup", "accuracy"}
    assert len(places) >= 7
    for page, text in texts.items():
        assert tables.filled(text, tables.up_from(page)) == text, page


def test_what_has_no_value_says_why_below_its_table() -> None:
    rows: list[dict[str, Any]] = [
        {"group": "loader", "name": "a", "unit": "images/s", "median": 5.0, "quartiles": [4, 6]},
        {"group": "loader", "name": "b", "unit": "images/s", "median": None},
        {"group": "loader", "name": "c", "unit": "images/s", "median": None},
    ]
    for row, note in zip(rows, ("", "absent: needs b", "failed: Oh. Do this."), strict=True):
        row["note"] = note
    found = report.markdown({"rows": rows, "findings": {}})
    assert found.splitlines()[2:] == [
        "| a | 5.00 | 4.00 to 6.00 | 1.00 |",
        "| b | absent (1) |  |  |",
        "| c | failed (2) |  |  |",
        "",
        "(1) b: needs b  ",
        "(2) c: Oh",
    ]


def test_a_quick_look_gives_no_advice() -> None:
    found = json.loads((tables.RESULTS / "cpu" / "bench-profile.json").read_text())
    assert any(line.startswith("recommended: ") for line in report.summary(found))
    found["settings"]["quick"] = True
    assert report.summary(found) == ["--quick: a look in seconds, too short for figures and advice"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_fit_80_columns(path: Path) -> None:
    found = json.loads(path.read_text())
    console = Console(width=80)
    for group, table in zip(report.groups(found), report.tables(found), strict=True):
        with console.capture() as capture:
            console.print(table)
        shown = capture.get()
        assert len(shown.splitlines()) <= len(group.cells) + 6 + 2 * len(group.notes)
        assert all(cells[0] in shown for cells in group.cells)


@pytest.mark.parametrize(
    ("kind", "own", "others"),
    [
        (
            "loader",
            {"dali_cutmix", "dali_cutmix without mixing"},
            {"timm", "DALI, CutMix in torch"},
        ),
        ("mix", {"soft labels", "MixUp, batch"}, {"torchvision v2.CutMix, batch, uint8"}),
        ("profile", {"decode"}, set()),
    ],
)
def test_rows_of_this_package_are_told_from_those_of_peers(
    kind: str, own: set[str], others: set[str]
) -> None:
    found = json.loads((tables.RESULTS / "cpu" / f"bench-{kind}.json").read_text())
    names = {row["name"] for row in found["rows"]}
    ours = {name for name in names if report._is_own(kind, name)}
    assert own <= ours
    assert others <= names - ours


def test_results_of_a_gpu_get_tables_by_themselves(tmp_path: Path) -> None:
    for hardware, gpu in (("cpu", None), ("h200", "NVIDIA H200")):
        (tmp_path / hardware).mkdir()
        for kind in ("mix", "loader"):
            found = json.loads((tables.RESULTS / "cpu" / f"bench-{kind}.json").read_text())
            found["environment"]["gpu"] = gpu
            for row in found["rows"] if gpu else ():
                row["group"] = row["group"].replace("CPU time", "GPU time")
            (tmp_path / hardware / f"bench-{kind}.json").write_text(json.dumps(found))
    place = "before\n\n<!-- bench GPUs -->\n\nold\n\n<!-- end -->\n\nafter\n"
    text = tables.filled(place, results=tmp_path)
    assert text.startswith("before\n\n<!-- bench GPUs -->\n\nOn one NVIDIA H200, ")
    assert text.endswith(".\n\n<!-- end -->\n\nafter\n")
    for expected in (
        "| mixing alone, time of the GPU | ms per batch | quartiles |",
        "| dali_cutmix without mixing | ",
        "Batches of 256, [result](benchmarks/results/h200/bench-mix.json).",
        "Batches of 64, [result](benchmarks/results/h200/bench-loader.json).",
    ):
        assert text.count(expected) == 1, expected
    assert tables.filled(text, results=tmp_path) == text
