"""The package is light to import: a graph needs DALI and NumPy, and names come when asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dali_cutmix

HEAVY = ("torch", "rich", "PIL", "simplejpeg", "yaml", "sqlite3", "matplotlib", "timm")

A_GRAPH = """
from dali_cutmix import MixConfig, mix, recipes
from dali_cutmix.augment.graph import augment
from nvidia.dali import fn, pipeline_def

@pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
def pipe(root):
    encoded, labels = fn.readers.file(file_root=root)
    images = fn.resize(fn.decoders.image(encoded), size=(32, 48))
    images = augment(images, recipes.get("rsb-a3").augment, size=(32, 48), seed=1)
    mixed = mix(images, labels, MixConfig(num_classes=5, mixup_alpha=0.2), size=(32, 48))
    return mixed.images, mixed.targets, mixed.params.lam

images, targets, lam = pipe(root=ROOT).run()
assert targets.shape() == [(5,)] * 16
"""
A_PIPELINE = """
from dali_cutmix import MixConfig, RandomErasing, find_source
from dali_cutmix.pipelines import imagenet

options = dict(batch_size=16, num_threads=1, device_id=None, seed=1, size=(32, 32))
source = find_source(ROOT)
mix = MixConfig(num_classes=source.num_classes)
images, targets = imagenet.train(source, mix, erase=RandomErasing(prob=0.25), **options).run()
assert targets.shape() == [(5,)] * 16
images, labels = imagenet.val(source, resize=36, **options).run()
assert images.shape() == [(3, 32, 32)] * 16
"""
A_LOADER = """
from dali_cutmix import train_loader

with train_loader(ROOT, batch_size=16, recipe="rsb-a3", size=32, device="cpu") as loader:
    images, targets = next(iter(loader))
assert targets.shape == (16, 5)
"""


def run_without(blocked: tuple[str, ...], script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in which the import of the blocked modules is an error."""
    block = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n"
    ran = subprocess.run([sys.executable, "-c", block + script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.parametrize("script", [A_GRAPH, A_PIPELINE], ids=["a graph", "imagenet"])
def test_a_graph_needs_dali_and_numpy_alone(photos: str, script: str) -> None:
    run_without(HEAVY, f"ROOT = {photos!r}\n{script}")


def test_a_loader_needs_torch_besides(photos: str) -> None:
    run_without(HEAVY[1:], f"ROOT = {photos!r}\n{A_LOADER}")


def test_the_package_itself_loads_nothing() -> None:
    script = "import sys, dali_cutmix\nassert dali_cutmix.__version__ and dir(dali_cutmix)\n"
    run_without((*HEAVY, "numpy"), script + "assert 'nvidia.dali' not in sys.modules\n")


@pytest.mark.parametrize("blocked", ["nvidia", "nvidia.dali"])
def test_without_dali_the_import_says_which_to_install(blocked: str) -> None:
    script = """
try:
    import dali_cutmix
except ImportError as error:
    text = str(error)
assert "'dali-cutmix[cuda12]' for CUDA 12" in text, text
assert "'dali-cutmix[cuda13]' for CUDA 13" in text, text
"""
    run_without((blocked,), script)


def test_without_torch_a_loader_says_what_to_install() -> None:
    script = """
from dali_cutmix import MixConfig
for name in ("Loader", "losses", "train_loader"):
    try:
        exec(f"from dali_cutmix import {name}")
    except ImportError as error:
        assert str(error) == f"`{name}` needs torch: pip install 'dali-cutmix[torch]'.", error
    else:
        raise AssertionError(name)
"""
    run_without(("torch",), script)


def test_without_rich_the_command_says_what_to_install() -> None:
    script = """
from dali_cutmix.__main__ import main
assert main() == 1
"""
    done = run_without(("rich",), script)
    assert done.stderr == "dali-cutmix: the command needs rich: pip install 'dali-cutmix[cli]'\n"


def test_without_rich_a_loader_shows_no_bar(photos: str, tmp_path: Path) -> None:
    options = "batch_size=16, on_error='skip', size=32, device='cpu'"
    script = f"""
import os
os.environ["XDG_CACHE_HOME"] = {str(tmp_path)!r}
from dali_cutmix import train_loader
with train_loader({photos!r}, {options}) as loader:
    assert len(loader) == 5
"""
    run_without(("rich",), script)


def test_dir_shows_the_public_names_alone() -> None:
    script = "\n".join(
        (
            "import dali_cutmix",
            "before = dir(dali_cutmix)",
            "assert before == sorted(dali_cutmix.__all__), before",
            "from dali_cutmix import *",  # loads everything
            "assert dir(dali_cutmix) == before, dir(dali_cutmix)",
        )
    )
    run_without((), script)


MODULES = {**dali_cutmix._NAMES, "dali_cutmix": ("losses", "recipes")}


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_loads_first_of_all(module: str) -> None:
    first, *others = MODULES[module]
    script = f"import dali_cutmix\nassert dali_cutmix.{first}.__name__.endswith({first!r})\n"
    run_without((), script + "".join(f"dali_cutmix.{name}\n" for name in others))


def test_every_public_name_stands_in_the_table_once() -> None:
    table = [name for names in dali_cutmix._NAMES.values() for name in names]
    assert sorted([*table, "__version__", "losses", "recipes"]) == sorted(dali_cutmix.__all__)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dali_cutmix' has no attribute 'CutMixx'"):
        dali_cutmix.CutMixx  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(dali_cutmix, "policies")
    with pytest.raises(ImportError, match="cannot import name 'Mixer' from 'dali_cutmix'"):
        from dali_cutmix import Mixer  # type: ignore[attr-defined]  # noqa: F401
