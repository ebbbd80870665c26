"""What is to go says so first: a warning at the user's line, with versions and the remedy.

Whatever is public stays for at least two minor releases after the one that deprecates it. A test
fails where a release is to remove something that is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dali_cutmix._rules import warn

__all__ = ["renamed_argument", "warn_deprecated"]

P = ParamSpec("P")
R = TypeVar("R")


def warn_deprecated(name: str, *, since: str, removed: str, instead: str) -> None:
    """Warns that something public will go; FutureWarning, which is shown by default.

    Args:
        name: as the user writes it, ``"MixConfig.lam"``.
        since: version that deprecates it, ``"0.3"``.
        removed: version that will not have it, ``"0.5"``.
        instead: what to write in its place.
    """
    warn(
        f"`{name}` is deprecated since {since} and goes in {removed}: use {instead}.",
        FutureWarning,
    )


def renamed_argument(
    old: str, new: str, *, since: str, removed: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function take a keyword argument by its old name too, with a warning.

    Raises:
        TypeError: by the function, where both names are given.
    """

    def of(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def taking_both(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = dict(kwargs)
            if old in given:
                if new in given:
                    raise TypeError(f"`{old}` must be left out with `{new}`: it is its old name.")
                warn_deprecated(old, since=since, removed=removed, instead=f"`{new}`")
                given[new] = given.pop(old)
            return function(*args, **given)

        return taking_both

    return of
