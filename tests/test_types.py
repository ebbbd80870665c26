"""A user's type checker sees real types, in an editable install and in one from a wheel.

The script that is checked stands outside of the repository and knows nothing of its settings: mypy
and pyright (as basedpyright, which comes with its node and downloads nothing) run with their
defaults.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import pytest

from dali_cutmix.mixing.config import MixConfig, MixOptions

ROOT = Path(__file__).parent.parent
STUBS = ROOT / "stubs"

SETTING = """
import dali_cutmix as dcm
from dali_cutmix.mixing import boxes
from dali_cutmix.pipelines import imagenet
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import pipeline_def  # DALI does not say that it exports it above

methods = (dcm.CutMix(alpha=0.5), dcm.MixUp())
cfg = dcm.MixConfig(num_classes=10, methods=methods, weights=(0.3, 0.7), mode="batch")
loader = dcm.train_loader("photos", batch_size=64, mix=cfg, augment=dcm.RandAugment())

@pipeline_def(batch_size=64, num_threads=2, device_id=0)
def pipeline():
    encoded, labels = fn.readers.file(file_root="photos", name="Reader")
    images = fn.random_resized_crop(fn.decoders.image(encoded), size=(32, 48))
    mixed = dcm.mix(images, labels, cfg, size=(32, 48))
    return mixed.images, mixed.targets

own = dcm.Loader(pipeline, batch_size=64, num_threads=2, device_id=None)

def use(images: DataNode, labels: DataNode) -> None:
    mixed = dcm.mix(images, labels, cfg, size=(32, 48))
"""

# What an expression is. Where a line is right, no checker may complain.
TYPES = {
    "mixed.images": "DataNode",
    "mixed.targets": "DataNode | Any",
    "mixed.params.lam": "DataNode",
    "mixed.params.box": "DataNode | None",
    "dcm.cutmix(images, labels, num_classes=10).images": "DataNode",
    "dcm.mixup(images, labels, num_classes=10, label_smoothing=0.1).images": "DataNode",
    "dcm.mix(images, None, cfg, size=(8, 32, 48), layout='CDHW').images": "DataNode",
    "dcm.mix_masks(images, mixed.params, dtype='int64')": "DataNode",
    "dcm.mix_boxes(images, labels, mixed.params, extra=[labels])": "tuple[DataNode, ...]",
    "boxes.around(mixed.params.lam, images, labels)": "DataNode",
    "cfg.num_classes": "int | None",
    "cfg.cutmix_alpha": "float",
    "cfg.weights": "tuple[float, ...]",
    "cfg.methods": "tuple[Method, ...]",
    "dcm.CutMix().alpha": "float",
    "loader": "Loader",
    "next(iter(loader))[0]": "Tensor",
    "[images for images, targets in own]": "list[Tensor]",
    "next(iter(loader))[1]": "Tensor | Any",
    "len(loader)": "int",
    "loader.epoch": "int",
    "dcm.val_loader('photos', batch_size=64)": "Loader",
    "dcm.find_source('photos')": "Source",
    "imagenet.train('photos', num_classes=10)": "Pipeline",
    "dcm.recipes.get('deit')": "Recipe",
}

# What every checker must refuse.
WRONG = (
    'x: int = boxes.around("a", 3, None)',
    "x: int = mixed.images",
    'boxes.around("a", images, images)',
    "mixed.image",
    "mixed.images.reshap()",
    "dcm.MixConfg",
    "dcm.MixConfig(num_clases=10)",
    'dcm.MixConfig(num_classes="10")',
    'dcm.MixConfig(num_classes=10, box="papr")',
    "dcm.MixConfig(num_classes=10, methods=(3,))",
    "cfg.prob = 0.5",
    "dcm.mix(images, cfg)",
    "dcm.mix(images, labels, cfg, seed=images)",
    "dcm.mix(images, labels, cfg, sise=(32, 48))",
    "dcm.mix(images, labels, cfg, params=mixed)",
    "dcm.cutmix(images, labels, num_classes=images)",
    'dcm.cutmix(images, labels, num_classes=10, box="papr")',
    "dcm.mixup(images, labels, num_classes=10, smoothing=0.1)",
    'dcm.train_loader("photos")',
    'dcm.train_loader("photos", batch_size="64")',
    'dcm.train_loader("photos", batch_size=64, device=3)',
    'dcm.train_loader("photos", batch_size=64, mix=3)',
    'dcm.train_loader("photos", batch_size=64, augmnt=None)',
    "dcm.CutMix(alpha=labels)",
    "next(iter(loader))[0].nonsense",
)


class Report(NamedTuple):
    """What a checker said: types by line, and the lines with an error."""

    types: dict[int, str]
    errors: set[int]


@pytest.fixture(scope="module", params=["editable", "wheel"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has the package as a user has it: this one, or one with a wheel of it."""
    if request.param == "editable":
        return sys.executable
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(built_wheel(tmp_path_factory.mktemp("build"))) as wheel:
        wheel.extractall(packages)
    # DALI and torch from here. Of this folder's own .pth files none is read, so no editable install
    # is seen.
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return str(folder / "bin" / "python")


def built_wheel(folder: Path) -> Path:
    """Builds the wheel from a copy, because setuptools writes beside what it reads."""
    try:
        if int(version("setuptools").split(".")[0]) < 77:
            pytest.skip("the wheel needs setuptools 77")
    except PackageNotFoundError:
        pytest.skip("setuptools is not installed")
    source = folder / "source"
    for name in ("dali_cutmix", "pipelines"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def script() -> tuple[str, dict[int, str], dict[int, str]]:
    """Returns the user's script, and by line the expressions revealed and the wrong statements."""
    lines = SETTING.splitlines()
    revealed, wrong = {}, {}
    for expression in TYPES:
        lines.append(f"    reveal_type({expression})")
        revealed[len(lines)] = expression
    for i, statement in enumerate(WRONG):
        # Each where nothing before it is known: a checker stops after what never returns.
        lines += [f"def wrong_{i}(images: DataNode, labels: DataNode, mixed: dcm.Mixed) -> None:"]
        lines += [f"    {statement}"]
        wrong[len(lines)] = statement
    return "\n".join(lines) + "\n", revealed, wrong


def plain(text: str) -> str:
    """Returns a type without the modules that mypy names."""
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def output_of(command: list[str], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(python: str, folder: Path, cache: Path) -> Report:
    options = ["--config-file=", f"--cache-dir={cache}", f"--python-executable={python}"]
    output = output_of([sys.executable, "-m", "mypy", *options, "use.py"], folder)
    report = Report({}, set())
    for line, kind, message in re.findall(r"^use\.py:(\d+): (error|note): (.*)$", output, re.M):
        if kind == "error":
            report.errors.add(int(line))
        elif message.startswith("Revealed type is"):
            report.types[int(line)] = plain(message.split('"')[1])
    return report


def pyright(python: str, folder: Path) -> Report:
    pytest.importorskip("basedpyright", reason="basedpyright is not installed")
    # Pyright's own default; basedpyright has a stricter one.
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    options = ["--outputjson", "--pythonpath", python]
    output = output_of([sys.executable, "-m", "basedpyright", *options, "use.py"], folder)
    report = Report({}, set())
    for found in json.loads(output)["generalDiagnostics"]:
        line = found["range"]["start"]["line"] + 1
        if found["severity"] == "error":
            report.errors.add(line)
        elif match := re.fullmatch(r'Type of ".*" is "(.*)"', found["message"]):
            report.types[line] = match[1]
    return report


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def report(
    request: pytest.FixtureRequest, python: str, tmp_path_factory: pytest.TempPathFactory
) -> Report:
    folder = tmp_path_factory.mktemp("user")
    (folder / "use.py").write_text(script()[0])
    if request.param == "pyright":
        return pyright(python, folder)
    # Kept for the next run, by each process of one: mypy reads torch for half a minute.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return mypy(python, folder, request.config.cache.mkdir(f"types{worker}"))


@pytest.mark.slow
def test_a_user_sees_real_types(report: Report) -> None:
    revealed = script()[1]
    assert {revealed[line]: found for line, found in report.types.items()} == TYPES


@pytest.mark.slow
def test_mistakes_are_reported_and_nothing_else(report: Report) -> None:
    text, _, wrong = script()
    lines = text.splitlines()
    assert [lines[i - 1].strip() for i in sorted(report.errors)] == list(wrong.values())


def test_the_wheel_has_types_and_no_stubs_of_dali(tmp_path: Path) -> None:
    with zipfile.ZipFile(built_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
    assert "dali_cutmix/py.typed" in names
    assert "dali_cutmix/pipelines/imagenet.py" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dali_cutmix"}


def test_cutmix_and_mixup_take_the_options_of_mix_config() -> None:
    fields = dict(MixConfig.__annotations__)
    of_methods = ("methods", "weights", "cutmix_alpha", "mixup_alpha", "switch_prob")
    for name in ("num_classes", *of_methods):
        del fields[name]
    assert {
        name: kind.__forward_arg__ for name, kind in MixOptions.__annotations__.items()
    } == fields


# The stubs of DALI say what DALI has


@pytest.mark.parametrize("path", sorted(STUBS.rglob("*.pyi")), ids=lambda path: path.stem)
def test_the_stubs_say_nothing_that_dali_has_not(path: Path) -> None:
    parts = path.relative_to(STUBS).with_suffix("").parts
    module = importlib.import_module(".".join(p for p in parts if p != "__init__"))
    for node in ast.parse(path.read_text()).body:
        for name in names_of(node):
            assert hasattr(module, name), name
        if isinstance(node, ast.ClassDef):
            check_class(node, getattr(module, node.name))
        elif isinstance(node, ast.FunctionDef):
            check_parameters(node, getattr(module, node.name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Attribute):
            enum, member = ast.unparse(node.value).split(".")
            assert getattr(module, ast.unparse(node.target)) == getattr(
                getattr(module, enum), member
            )


def names_of(node: ast.stmt) -> list[str]:
    """Returns the public names that a statement of a stub defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname for alias in node.names if alias.asname]
    if isinstance(node, ast.AnnAssign):
        name = ast.unparse(node.target)
        return [] if name.startswith("_") and not name.startswith("__") else [name]
    return []


def check_class(stub: ast.ClassDef, real: type) -> None:
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            method = getattr(real, node.name, None)
            assert method is not None, node.name
            check_parameters(node, method)


def check_parameters(stub: ast.FunctionDef, real: object) -> None:
    """Fails unless the function takes by keyword what the stub says it does."""
    try:
        parameters = inspect.signature(real).parameters  # type: ignore[arg-type]
    except ValueError:  # of a binary
        return
    named = [argument.arg for argument in (*stub.args.args, *stub.args.kwonlyargs)]
    assert set(named) <= set(parameters), stub.name
