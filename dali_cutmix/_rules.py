"""Rules of the data, and how a user gets to read them when DALI finds one broken.

What is in the data is known only when a pipeline runs. A check is then an operator that fails, and
DALI's message quotes the functions that the operator stands in. So a function that checks bears the
rule as the name of its frames (`states`): a bare pipeline prints it, and `explain` finds it for the
loaders.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from nvidia import dali

__all__ = ["dali_reason", "explain", "states", "warn"]

Function = TypeVar("Function", bound=Callable[..., Any])
_MARK = "dali_cutmix: "


def states(rule: str) -> Callable[[Function], Function]:
    """Gives a function a rule as the name of its frames, which DALI quotes if an operator fails."""

    def named(function: Function) -> Function:
        code: Any = function
        code.__code__ = code.__code__.replace(co_name=_MARK + rule)
        return function

    return named


def explain(error: BaseException) -> str | None:
    """Returns which rule the data break, and DALI's reason, or None if it cannot tell."""
    text = str(error)
    rules = re.findall(rf"line \d+, in {_MARK}(.+)", text)
    return f"{rules[-1]} DALI: {dali_reason(text)}" if rules else None


def dali_reason(text: str) -> str:
    """Returns the line of DALI's message that says what failed."""
    reason = text.partition("encountered:")[2].strip().splitlines()
    return reason[0] if reason else text.splitlines()[0]


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns, at the line of the user's that led here: outside of this package and of DALI."""
    inside = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (__file__, dali.__file__))
    level, frame = 2, sys._getframe(1)
    while frame.f_back and os.path.abspath(frame.f_code.co_filename).startswith(inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
