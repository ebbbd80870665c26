"""Deprecations: warned at the user's line, and removed when they said they would be."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path

import pytest

import dali_cutmix
from dali_cutmix import _deprecation
from dali_cutmix._deprecation import renamed_argument, warn_deprecated

PACKAGE = Path(dali_cutmix.__file__).parent


@renamed_argument("share", "lam", since="0.3", removed="0.5")
def mixed(image: int, *, lam: float = 1.0) -> float:
    """Returns a mix."""
    return image * lam


def test_the_old_name_works_and_warns_at_the_line_that_uses_it() -> None:
    with pytest.warns(FutureWarning) as caught:
        assert mixed(2, share=0.5) == 1.0  # type: ignore[call-arg]
    (one,) = caught
    assert str(one.message) == "`share` is deprecated since 0.3 and goes in 0.5: use `lam`."
    assert one.filename == __file__


def test_the_new_name_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        assert mixed(2, lam=0.5) == 1.0
        assert mixed(2) == 2.0
    assert caught == []
    assert mixed.__name__ == "mixed"


def test_both_names_are_refused() -> None:
    with pytest.raises(TypeError, match="`share` must be left out with `lam`: it is its old name"):
        mixed(2, lam=0.5, share=0.5)  # type: ignore[call-arg]


def test_what_is_no_argument_is_told_by_its_name() -> None:
    with pytest.warns(FutureWarning, match="`MixConfig.x` is deprecated since 0.3 and goes in 0.5"):
        warn_deprecated("MixConfig.x", since="0.3", removed="0.5", instead="`y`")


def overdue(tree: ast.AST, version: str) -> list[str]:
    """Returns what a module should no longer have in a version."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("warn_deprecated", "renamed_argument")
        ):
            removed = {k.arg: k.value for k in node.keywords}["removed"]
            if isinstance(removed, ast.Constant) and numbers(removed.value) <= numbers(version):
                found.append(ast.unparse(node))
    return found


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def test_nothing_deprecated_is_there_too_long() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not overdue(ast.parse(path.read_text()), dali_cutmix.__version__), path
    here = ast.parse(Path(__file__).read_text())
    assert len(overdue(here, "0.5.0")) == 2
    assert overdue(here, "0.4.9") == []
    assert _deprecation.__doc__
