"""Imports go one way, private names of DALI stand in two modules, and only drawing draws."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# What each part of the package may import of the others, besides itself and `_private` modules of
# the top level. A name stands for what is in it.
ALLOWED: dict[str, set[str]] = {
    "": set(),  # the private modules of the top level
    "losses": set(),
    "mixing": set(),
    "augment": set(),
    "data": set(),
    "recipes": {"augment.policies", "mixing.config", "mixing.methods"},
    "pipelines": {"augment", "data", "mixing", "recipes"},
    "loaders": {"augment.policies", "data", "mixing.config", "pipelines", "recipes"},
    # "": a user's view, `import dali_cutmix as dcm`
    "cli": {"", "augment", "data", "loaders", "losses", "mixing", "pipelines", "recipes"},
}
# What of other packages each part imports when it is imported; more may come when it is used.
GRAPH = {"numpy", "nvidia"}
OUTSIDE: dict[str, set[str]] = {
    "": GRAPH,
    "losses": {"torch"},
    "mixing": GRAPH,
    "augment": GRAPH,
    "data": GRAPH,
    "data.damage": {"PIL", "simplejpeg"},
    "data.verification": {"PIL", "simplejpeg"},
    "recipes": set(),
    "pipelines": {"nvidia"},
    "loaders": {*GRAPH, "torch"},
    "cli": {*GRAPH, "torch", "rich", "PIL"},
}
# Where something random is drawn; a benchmark draws what it measures on.
DRAWING = {
    *("mixing.draw", "mixing.pairing"),
    *("augment.draws", "augment.erasing", "augment.lighting"),
    *("data.boxes", "data.images", "data.voxels", "cli.bench.mixing"),
    "mixing.followers.boxes",  # fn.random_bbox_crop, of which nothing random is asked
}
DALI_INSIDE = {"_dali", "loaders._iterator"}
VERSION_BOUND = {"DALIGenericIterator", "do_not_convert", "exec_dynamic", "serialize"}
OF_PYTHON = {"_asdict", "_exit", "_getframe", "_replace"}


class Import(NamedTuple):
    """Fields: what is imported, and whether when the module is."""

    name: str
    at_once: bool


def _parsed() -> dict[str, ast.Module]:
    """Returns the modules of the package, `a.b` for dali_cutmix/a/b.py; "" is the package."""
    found = {}
    for folder, _, names in os.walk(ROOT / "dali_cutmix", followlinks=True):
        for path in (Path(folder) / name for name in names if name.endswith(".py")):
            parts = path.relative_to(ROOT / "dali_cutmix").with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            found[name] = ast.parse(path.read_text())
    return found


MODULES = _parsed()


def imports(tree: ast.AST) -> Iterator[Import]:
    """Yields all imports, also those inside functions, but for those of type checkers alone."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = name.removeprefix("dali_cutmix.") in MODULES
                yield Import(name if is_module else str(node.module), at_once)
        at_once = at_once and not isinstance(node, (ast.FunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_once)

    return walk(tree, True)


def of_the_package(found: Iterable[Import]) -> set[str]:
    """Returns the modules of the package among what is imported."""
    names = {i.name for i in found if i.name.split(".")[0] == "dali_cutmix"}
    return {name.removeprefix("dali_cutmix").removeprefix(".") for name in names}


def part_of(module: str) -> str:
    """Returns the part that a module is in; "" for the private modules of the top level."""
    top = module.split(".")[0]
    if top == "__main__":
        return "cli"
    return "" if top.startswith("_") else top


def within(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_go_one_way(module: str) -> None:
    part = part_of(module)
    for imported in of_the_package(imports(MODULES[module])):
        if part_of(imported) == part or imported.startswith("_"):
            continue
        assert within(imported, ALLOWED[part]), f"{module} imports {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_what_is_imported_at_once_of_other_packages(module: str) -> None:
    found = {i.name.split(".")[0] for i in imports(MODULES[module]) if i.at_once}
    found -= {*sys.stdlib_module_names, "dali_cutmix"}
    assert found <= OUTSIDE[part_of(module)] | OUTSIDE.get(module, set())


def at_once(module: str) -> set[str]:
    """Returns what is executed before a module, the packages that it is not in itself included."""
    found = set()
    for name in of_the_package(i for i in imports(MODULES[module]) if i.at_once):
        parts = name.split(".")
        found |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return {name for name in found if name and not within(module, [name])}


def test_no_module_imports_itself_by_way_of_others() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(at_once(module)):
                visit(imported, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert done == MODULES.keys()


def test_no_one_imports_the_pipelines_by_their_name_in_the_checkout() -> None:
    for folder in ("dali_cutmix", "tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            names = {i.name.split(".")[0] for i in imports(ast.parse(path.read_text()))}
            assert "pipelines" not in names, path


# DALI


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""


def private_names(tree: ast.AST) -> set[str]:
    """Returns the private and version-bound names that are asked of objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "hasattr"):
            found |= {arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)}
    private = {name for name in found if name.startswith("_") and not name.startswith("__")}
    return (private | found & VERSION_BOUND) - OF_PYTHON


def defined(tree: ast.AST) -> Iterator[str]:
    """Yields the names that a module defines, of functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if dotted(node.value) == "self":
                yield node.attr


OWN = {name for module in MODULES.keys() - DALI_INSIDE for name in defined(MODULES[module])}
OWN |= {part for module in MODULES for part in module.split(".")}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - DALI_INSIDE))
def test_private_names_of_dali_stand_apart(module: str) -> None:
    assert not private_names(MODULES[module]) - OWN


def test_every_private_name_of_dali_has_a_test() -> None:
    used: set[str] = set().union(*(private_names(MODULES[module]) for module in DALI_INSIDE))
    tests = (ROOT / "tests" / "test_dali.py").read_text()
    assert {"_conditional", "_pipe", "_ops", "_get_outputs"} <= used
    assert [name for name in sorted(used - OWN) if name not in tests] == []


def draws(tree: ast.AST) -> Iterator[ast.Call]:
    """Yields the calls of random operators."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            random = any(word in name for word in ("random", "noise.", "batch_permutation"))
            if random and name.startswith("fn."):
                yield node
            elif name in ("fn.jitter", "fn.roi_random_crop", "fn.python_function"):
                yield node


@pytest.mark.parametrize("module", MODULES)
def test_only_drawing_draws_and_every_draw_has_a_seed(module: str) -> None:
    calls = list(draws(MODULES[module]))
    assert bool(calls) == (module in DRAWING), [ast.unparse(call) for call in calls]
    for call in calls:
        assert "seed" in {keyword.arg for keyword in call.keywords}, ast.unparse(call)


def test_only_the_readers_read() -> None:
    reading = {
        name
        for name, tree in MODULES.items()
        if any(dotted(n).startswith("fn.readers.") for n in ast.walk(tree))
    }
    assert reading == {"data.readers"}
