"""What the documentation says is true: code runs, commands and links exist, the site is built."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dali_cutmix
from benchmarks import startup
from dali_cutmix.cli import demo
from dali_cutmix.cli.bench.command import with_kind
from dali_cutmix.cli.main import build_parser
from dali_cutmix.mixing import config
from docs import hooks, pictures
from tests.support.deep import tiff

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


# The pages: README, docs/, and those that are made of the methods. (What is made of examples is
# tested with them.)

WRITTEN = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [*ROOT.glob("[CR]*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.name != "CHANGELOG.md"
}
MADE = {f"docs/{name}": text for name, text in hooks.pages().items() if name.startswith("methods/")}
PAGES = {**WRITTEN, **MADE}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(text) if found == language]


@pytest.fixture
def data_of_the_pages(
    photos: str,
    photo_masks: str,
    shape_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """Makes what the paths of the pages stand for; gives what puts small data in their place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    findings = tmp_path / "labels.csv"
    lines = [
        f"{path.relative_to(photos)},{path.parent.name}|image" for path in Path(photos).glob("*/*")
    ]
    findings.write_text("\n".join(["file,findings", *lines]))
    for part, dtype in (("images", np.int16), ("masks", np.uint8)):
        (tmp_path / part).mkdir()
        for k in range(2):
            np.save(tmp_path / part / f"{k}.npy", np.full((90, 100, 97), k, dtype))
    for k in range(32):
        path = tmp_path / "bands" / str(k % 2) / f"{k}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiff(np.full((70, 80, 13), 257 * k, np.uint16), photometric=1))
    folders = {
        "/data/labels.csv": str(findings),
        "/data/volumes": str(tmp_path),
        "/data/bands": str(tmp_path / "bands"),
        "/data/ade/masks": photo_masks,
        **dict.fromkeys(("/data/imagenet/train", "/data/imagenet/val", "/data/ade/images"), photos),
        **dict.fromkeys(('"imagenet/train"', '"imagenet/val"'), repr(photos)),
    }

    def small(code: str) -> str:
        for name, folder in folders.items():
            code = code.replace(name, folder)
        code = re.sub(r"/data/coco/\w+\.json", f"{shape_folder}/annotations.json", code)
        code = re.sub(r"/data/coco/\w+", shape_folder, code)
        code = code.replace("1000", "5").replace("256", "32")
        if not torch.cuda.is_available():
            code = code.replace('"gpu"', '"cpu"').replace('"mixed"', '"cpu"')
            code = code.replace("device_id=0", "device_id=None")
        return code

    return small


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if blocks(text, "python")])
def test_the_code_of_the_pages_runs(page: str, data_of_the_pages: Callable[[str], str]) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5, device=device))
    names: dict[str, Any] = {"torch": torch, "model": model, "dcm": dali_cutmix}
    seen: dict[str, Any] = {}
    for number, block in enumerate(blocks(PAGES[page], "python")):
        exec(compile(data_of_the_pages(block), f"{page}, block {number}", "exec"), names)
        seen |= {f"{name}_{number}": names[name] for name in ("images", "targets") if name in names}
    for name, shapes in SHAPES.get(page, {}).items():
        value = (seen | names)[name]
        assert tuple(value.shape) == shapes, name
    for loader in names.values():
        if isinstance(loader, dali_cutmix.Loader):
            loader.close()


# What the pages say in comments.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    page: {
        **{"targets_0": (32, 5), "labels": (16,), "loss": ()},
        **{"images_1": (32, 3, 224, 224), "targets_1": (32, 5)},
    }
    for page in ("README.md", "docs/index.md")
}
SHAPES |= {
    "docs/data.md": {"rows": (32, 6)},
    "docs/detection.md": {"images": (32, 3, 320, 320)},
    "docs/segmentation.md": {"images_0": (32, 3, 512, 512)},
    "docs/volumes.md": {"volumes": (2, 1, 96, 96, 96), "masks": (2, 96, 96, 96)},
}


def test_the_method_of_the_page_mixes(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec(blocks(PAGES["docs/extending/method.md"], "python")[0], names)
    monkeypatch.setattr(config, "METHODS", (*config.METHODS, names["BandMix"]))
    mix = dali_cutmix.MixConfig(num_classes=5, methods=(names["BandMix"](),))
    options: dict[str, Any] = {"device": "cpu", "size": 40, "batch_size": 16, "num_threads": 1}
    samples = demo.mixed_samples(photos, mix, 16, **options)
    assert len({sample.box for sample in samples}) > 4
    for sample in samples:
        _, x, height, width = sample.box
        assert (x, width) == (0, 40)
        assert 4 <= height < 20
        assert sample.lam == pytest.approx(1 - height / 40)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page: str) -> None:
    found = {language for language, _ in FENCE.findall(PAGES[page])}
    assert found <= {"python", "console", "text"}
    assert PAGES[page].count("```") == 2 * len(FENCE.findall(PAGES[page]))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_pages_exist(page: str) -> None:
    text = PAGES[page]
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    lines += [" ".join(line.split()) for line in re.findall(r"`(dali-cutmix show [^`]*)`", text)]
    for line in lines:
        words = shlex.split(line)
        if words[0] == "dali-cutmix":
            assert build_parser().parse_args(with_kind(words[1:])).run, line
        elif words[0] in ("python", "torchrun"):
            (script,) = (word for word in words if word.endswith(".py"))
            assert (ROOT / script).is_file(), line
        elif words[0] == "make":
            assert words[1] in TARGETS, line
        else:
            assert words[0] in ("pip", "git"), line
    for name in re.findall(r"`dali-cutmix ([a-z]+)", text):
        assert f"commands/dali-cutmix-{name}.md" in hooks.pages()
    assert {*re.findall(r"`make ([a-z-]+)`", text)} <= {*TARGETS}


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_has_its_command_beside_it(page: str) -> None:
    lines = [line for line in PAGES[page].splitlines() if line and line != "</div>"]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("!["):
            assert following.startswith(("*Made by `", "*Drawn ")), line


def test_every_picture_can_be_made_anew() -> None:
    made = {command[command.index("--out") + 1] for command in pictures.commands()}
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.jpg")}
    assert kept <= made


@pytest.mark.parametrize("page", WRITTEN)
def test_links_lead_somewhere_in_the_checkout_too(page: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", WRITTEN[page]):
        if not re.match(r"https?:", link):
            assert (ROOT / page).parent.joinpath(link).exists(), link


def test_every_result_is_linked() -> None:
    texts = "".join(WRITTEN.values())
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        assert path.relative_to(ROOT).as_posix() + ")" in texts


def test_the_readme_is_short() -> None:
    assert len(WRITTEN["README.md"].split()) < 1000


def test_the_pages_name_every_option() -> None:
    for field in dataclasses.fields(dali_cutmix.MixConfig):
        assert f"| `{field.name}` |" in WRITTEN["docs/mixing.md"]


def test_every_method_has_a_page() -> None:
    names = {card.name for card in hooks.cards()}
    assert {method.__name__ for method in config.METHODS} == names
    for card in hooks.cards():
        assert {"Rule", "Defaults"} <= {key for key, _ in card.entries}
        assert card.name in MADE[f"docs/methods/{card.module}.md"]


def test_a_card_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "bandmix.py"
    path.write_text(blocks(PAGES["docs/extending/method.md"], "python")[0])
    card = hooks._card(path)
    assert card is not None
    assert (card.name, card.module) == ("BandMix", "bandmix")
    assert card.summary == "A horizontal band of the partner is pasted into the image."
    assert [key for key, _ in card.entries] == ["Rule", "Paper", "Defaults", "Cost"]
    assert dict(card.entries)["Rule"].endswith("lam is what then shows of the original")
    path.write_text('"""Areas that methods share: no card."""')
    assert hooks._card(path) is None


def test_every_command_has_a_page() -> None:
    pages = hooks.pages()
    for name in ("demo", "show", "recipes", "check", "index", "volumes", "bench"):
        text = pages[f"commands/dali-cutmix-{name}.md"]
        assert f"# dali-cutmix {name}\n" in text
        assert "`--json`" in text
        assert f"](dali-cutmix-{name}.md)" in pages["commands/index.md"]


def test_pages_that_no_one_named_are_in_the_guide() -> None:
    nav: list[Any] = [{"Start": ["index.md", {"Set up": "install.md"}]}, {"Guide": ["data.md"]}]
    hooks.on_config(SimpleNamespace(nav=nav))
    assert nav[1]["Guide"][0] == "data.md"
    assert {"mixing.md", "resume.md"} <= {*nav[1]["Guide"]}
    assert not {"index.md", "install.md"} & {*nav[1]["Guide"]}


def test_links_into_the_checkout_become_links_to_pages() -> None:
    text = "[a](../benchmarks/results/cpu/x.json) [b](../examples/y.py) [c](data.md#d)"
    assert hooks.links_to_pages(text) == "[a](results/cpu/x.json) [b](examples/y.md) [c](data.md#d)"
    deeper = hooks.links_to_pages("[m](../../dali_cutmix/mixing/methods/mixup.py)", "../")
    assert deeper == "[m](../methods/mixup.md)"


# What readers ask, and the page that a search for these words should find first: the one with a
# heading that has most of them.
QUESTIONS = {
    "where is the box clipped": "docs/mixing.md",
    "which gpu is used": "docs/resume.md",
    "how do i add a method": "docs/extending/method.md",
    "how does resume work with two ranks": "docs/resume.md",
    "what does my cuda need": "docs/install.md",
    "how do masks follow": "docs/segmentation.md",
    "what is not supported": "docs/limits.md",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_stand_in_a_heading(question: str) -> None:
    def best_heading(text: str) -> int:
        headings = re.findall(r"^#+ (.*)$", re.sub(FENCE, "", text), re.MULTILINE)
        words = [{*re.findall(r"\w+", heading.lower())} for heading in headings]
        return max(len({*question.split()} & found) for found in words)

    counts = {page: best_heading(text) for page, text in PAGES.items()}
    assert [page for page in counts if counts[page] == max(counts.values())] == [
        QUESTIONS[question]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_the_snippets_of_the_readme_have_right_types(checker: str, tmp_path: Path) -> None:
    model = "import torch\nmodel = torch.nn.Linear(2, 2)\n"
    for number, block in enumerate(blocks(PAGES["README.md"], "python")):
        (tmp_path / f"snippet{number}.py").write_text((model if "model(" in block else "") + block)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    pyright = ["--level", "error", "--pythonpath", sys.executable]
    options = {"mypy": [], "basedpyright": pyright}[checker]
    command = [sys.executable, "-m", checker, *options, *sorted(tmp_path.glob("*.py"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="the site is built on Python 3.11 or newer")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("index", "methods/cutmix", "commands/dali-cutmix-show", "examples/train_imagenet"):
        assert (tmp_path / "site" / f"{name}.html").is_file()
    assert (tmp_path / "site" / "results" / "cpu" / "bench-loader.json").is_file()


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
