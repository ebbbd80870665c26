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
    "sampling": {"config"},
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


@pytest.mark.parametrize("module", ALLOWED)
def test_the_graph_imports_one_way(module: str) -> None:
    own = {name.split(".")[1] for name in imports(module) if name.startswith("dali_cutmix.")}
    assert own <= ALLOWED[module]


@pytest.mark.parametrize("module", ALLOWED)
def test_the_graph_does_not_need_torch(module: str) -> None:
    assert not any(name.split(".")[0] == "torch" for name in imports(module))


def test_pipelines_and_what_stands_before_them() -> None:
    # Only what is in front of the pipelines knows them.
    front = {"folder_loaders", "demo", "cli"}
    for path in PACKAGE.glob("*.py"):
        knows = any(name.startswith("dali_cutmix.pipelines") for name in imports(path.stem))
        assert not knows or path.stem in front, path
    modules = {"config", "folders", "mixing", "sampling"}
    tree = (PACKAGE / "pipelines" / "imagenet.py").read_text()
    used = {line.split()[1] for line in tree.splitlines() if line.startswith("from dali_cutmix")}
    assert used <= {f"dali_cutmix.{module}" for module in modules}


def test_only_sampling_draws() -> None:
    for path in PACKAGE.glob("*.py"):
        if path.stem != "sampling":
            source = path.read_text()
            assert "fn.random." not in source, path
            assert "batch_permutation(" not in source, path
