"""Sections of docstrings get the titles that griffe knows: doctests, and the fields of tuples."""

from __future__ import annotations

from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Gives sections the titles of Google's style."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of each function, class and module."""
        if obj.docstring is not None:
            obj.docstring.value = with_titles(obj.docstring.value)


def with_titles(docstring: str) -> str:
    """Returns the docstring with its doctest, which comes last, in a section of its own."""
    docstring = docstring.replace("\nFields:\n", "\nAttributes:\n")
    text, prompt, code = docstring.partition("\n>>> ")
    if not prompt:
        return docstring
    indented = "\n".join(f"    {line}" for line in (">>> " + code).splitlines())
    return f"{text}\nExamples:\n{indented}\n"
