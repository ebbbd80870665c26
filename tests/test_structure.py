"""Imports go one way, and what the package promises about itself holds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dali_cutmix"
# What each module of the graph may import from the package.
ALLOWED: dict[str, set[str]] = {
    "config": set(),
    "boxes": set(),
    "checks": set(),
    "targets": set(),
    "compositing": set(),
    "table": set(),
    "sampling": {"boxes", "config", "table"},
    "mixing": {"boxes", "checks", "compositing", "config", "sampling", "targets"},
}


def imports(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    return {name.split(".")[1] for name in imports(module) if name.startswith("dali_cutmix.")}


@pytest.mark.parametrize("module", ALLOWED)
def test_the_graph_imports_one_way(module: str) -> None:
    assert own_imports(module) <= ALLOWED[module]


@pytest.mark.parametrize("module", ALLOWED)
def test_the_graph_does_not_need_torch(module: str) -> None:
    assert not any(name.split(".")[0] == "torch" for name in imports(module))


# What the modules before and around the graph may import.
BESIDE: dict[str, set[str]] = {
    "folders": set(),
    "policies": {"config"},
    "recipes": {"config", "policies"},
    "sources": {"config", "folders", "formats"},
    "losses": {"config"},
    "damage": {"folders"},
    "files": set(),
    "memory": set(),
    "survey": {"config", "damage", "files", "folders", "formats", "memory", "sources"},
    "loader": {"checks", "config", "folders", "sources"},
    "image_loaders": {
        *("config", "loader", "pipelines", "policies", "recipes", "sources", "survey"),
    },
}
FORMATS: dict[str, set[str]] = {  # of each other
    "paths": set(),
    "listed": {"paths"},
    "tars": set(),
    "tfrecords": set(),
    "recordio": set(),
    "indexes": {"paths", "recordio", "tars", "tfrecords"},
}
PIPELINES: dict[str, set[str]] = {
    "readers": {"folders", "sampling", "sources"},
    "nodes": {"config"},
    "draws": {"pipelines", "policies", "sampling"},
    "operations": {"config", "pipelines", "policies"},
    "lighting": {"pipelines", "policies", "sampling"},
    "augment": {"pipelines", "policies", "sampling"},
    "erasing": {"pipelines", "policies", "sampling"},
    "imagenet": {
        *("checks", "config", "mixing", "pipelines", "policies", "recipes", "sampling", "sources"),
    },
}


@pytest.mark.parametrize("module", BESIDE)
def test_what_is_beside_the_graph_imports_one_way(module: str) -> None:
    assert own_imports(module) <= BESIDE[module]


@pytest.mark.parametrize("module", FORMATS)
def test_the_formats_import_one_way(module: str) -> None:
    assert own_imports(f"formats/{module}") <= {"files", "folders", "formats"}
    names = {name.removeprefix("dali_cutmix.formats.") for name in imports(f"formats/{module}")}
    assert names & FORMATS.keys() <= FORMATS[module]


@pytest.mark.parametrize("module", PIPELINES)
def test_the_pipelines_import_the_package_and_only_what_stands_before_them_knows_them(
    module: str,
) -> None:
    assert own_imports(f"pipelines/{module}") <= PIPELINES[module]
    front = {"image_loaders", "demo", "cli"}
    knowing = {path.stem for path in PACKAGE.glob("*.py") if "pipelines" in own_imports(path.stem)}
    assert knowing <= front


def test_only_sampling_draws() -> None:
    for path in PACKAGE.glob("*.py"):
        if path.stem != "sampling":
            source = path.read_text()
            assert "fn.random." not in source, path
            assert "batch_permutation(" not in source, path
