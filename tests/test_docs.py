"""The examples of the docstrings and the README run as they stand."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dali_cutmix
from benchmarks import startup

ROOT = Path(__file__).parent.parent
# Of all of the package, the pipelines too.
MODULES = sorted(m.name for m in pkgutil.walk_packages(dali_cutmix.__path__, "dali_cutmix."))


def examples() -> list[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test
        for name in MODULES
        for test in finder.find(importlib.import_module(name), name)
        if test.examples
    ]
    return [pytest.param(test, id=test.name) for test in found]


@pytest.mark.parametrize("test", examples())
def test_docstring_examples(
    test: doctest.DocTest, photos: str, photo_masks: str, shape_folder: str
) -> None:
    folders = {"photo_folder": photos, "photo_masks": photo_masks, "shape_folder": shape_folder}
    test.globs = {**test.globs, **folders}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(test, clear_globs=False).failed == 0


def test_modules_at_every_depth_are_walked() -> None:
    assert {
        *("dali_cutmix.losses", "dali_cutmix.augment.graph", "dali_cutmix.cli.bench.command"),
        *("dali_cutmix.mixing.methods.cutmix", "dali_cutmix.pipelines.imagenet"),
    } <= {*MODULES}


def test_public_functions_have_examples() -> None:
    named = {param.id for param in examples()}
    public = [getattr(dali_cutmix, name) for name in dali_cutmix.__all__]
    functions = [f"{f.__module__}.{f.__name__}" for f in public if inspect.isfunction(f)]
    assert len(functions) == 11
    assert {*functions} <= named


def readme_code() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", range(len(readme_code())))
def test_readme_code_runs(
    block: int, photos: str, photo_masks: str, shape_folder: str, tmp_path: Path
) -> None:
    code = readme_code()[block]
    findings = tmp_path / "labels.csv"
    lines = [
        f"{path.relative_to(photos)},{path.parent.name}|image" for path in Path(photos).glob("*/*")
    ]
    findings.write_text("\n".join(["file,findings", *lines]))
    code = code.replace("/data/labels.csv", str(findings))
    for part, dtype in (("images", np.int16), ("masks", np.uint8)):
        (tmp_path / part).mkdir()
        for k in range(2):
            np.save(tmp_path / part / f"{k}.npy", np.full((90, 100, 97), k, dtype))
    code = code.replace("/data/volumes", str(tmp_path))
    code = code.replace("/data/ade/masks", photo_masks)
    for name in ("/data/imagenet/train", "/data/imagenet/val", "/data/ade/images"):
        code = code.replace(name, photos)
    code = re.sub(r"/data/coco/\w+\.json", f"{shape_folder}/annotations.json", code)
    code = re.sub(r"/data/coco/\w+", shape_folder, code)
    code = code.replace("1000", "5").replace("256", "32")
    device = "cuda"
    if not torch.cuda.is_available():
        code = code.replace('device="gpu"', 'device="cpu"').replace(
            'device="mixed"', 'device="cpu"'
        )
        code = code.replace("device_id=0", "device_id=None")
        device = "cpu"
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5, device=device))
    names = {"torch": torch, "model": model, "dcm": dali_cutmix}
    exec(compile(code, f"README.md, block {block}", "exec"), names)
    if block == 0:
        assert names["loss"].item() > 0
        assert 0 <= names["accuracy"].item() <= 1
    elif block == 1:
        assert next(iter(names["train"]))[1].shape == (32, 5)
        assert next(iter(names["smaller"]))[0].shape == (32, 3, 192, 192)
    elif block == 2:
        assert names["rows"].shape == (32, 6)
    elif block == 3:
        assert names["targets"].as_cpu().as_array().shape == (32, 5)
    elif block == 4:
        assert names["cfg"] == names["same"]
    elif block == 5:
        assert names["cfg"].weights == (0.4, 0.4, 0.2)
    elif block == 7:
        assert names["images"].shape == (32, 3, 512, 512)
        assert names["masks"].shape == (32, 512, 512)
    elif block == 6:
        assert names["images"].shape == (32, 3, 320, 320)
        assert len(names["targets"]) == 32
        assert names["val"].classes == names["train"].classes
    else:
        assert names["volumes"].shape == (2, 1, 96, 96, 96)
        assert names["masks"].shape == (2, 96, 96, 96)


def test_the_readme_names_every_option() -> None:
    table = (ROOT / "README.md").read_text()
    for field in dataclasses.fields(dali_cutmix.MixConfig):
        assert f"| `{field.name}` |" in table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "line", "times"),
    [
        (
            "embed_in_your_pipeline",
            ["--batch-size", "32"],
            "images (32, 3, 160, 160), targets (32, 5) on cpu",
            2,
        ),
        (
            "mix_with_a_second_reader",
            ["--batch-size", "1"],
            "images (1, 3, 160, 160); the target of the first: ",
            4,
        ),
    ],
)
def test_the_examples_run(
    photos: str, name: str, arguments: list[str], line: str, times: int
) -> None:
    script = ROOT / "examples" / f"{name}.py"
    command = [sys.executable, script, "--data", photos, "--num-classes", "5", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count(line) == times


@pytest.mark.slow
def test_the_benchmark_of_the_losses_runs(tmp_path: Path) -> None:
    result = tmp_path / "losses.json"
    command = [sys.executable, ROOT / "benchmarks" / "losses.py", "--repeats", "3"]
    subprocess.run([*command, "--json", result], capture_output=True, check=True)
    assert len(json.loads(result.read_text())["results"]) == 2


@pytest.mark.parametrize("symbolic", [False, True])
def test_the_tree_of_the_startup_benchmark(
    symbolic: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(startup, "LINKS", 50)
    startup.make_tree(tmp_path / "tree", 130, symbolic=symbolic, classes=3)
    files = sorted((tmp_path / "tree").rglob("*.JPEG"))
    assert [len([*folder.iterdir()]) for folder in sorted((tmp_path / "tree").iterdir())] == [
        *(44, 43, 43)
    ]
    assert len({file.stat().st_ino for file in files}) == 3
    assert {file.is_symlink() for file in files} == {symbolic}


def test_the_startup_benchmark_measures_both_in_processes_of_their_own() -> None:
    rows = startup.measure(1000, 1)
    assert [row["name"] for row in rows] == ["dali_cutmix", "torchvision"]
    for row in rows:
        assert row["files"] == 1000
        assert row["ready"]["median"] > 0
        assert row["memory"]["unit"] == "MB"
    assert {"state", "second state"} <= rows[0].keys()
    assert "state" not in rows[1]


@pytest.mark.parametrize("path", [*(ROOT / "benchmarks").glob("*.py")], ids=lambda path: path.stem)
def test_what_the_benchmarks_import_is_there(path: Path) -> None:
    assert importlib.import_module(f"benchmarks.{path.stem}").__doc__
