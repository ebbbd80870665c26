"""Checks of arguments: each returns the value in its type, or raises TypeError or ValueError."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

__all__ = [
    "checked_alpha",
    "checked_bool",
    "checked_choice",
    "checked_fraction",
    "checked_indices",
    "checked_int",
    "checked_number",
    "checked_numbers",
    "checked_size",
    "set_checked",
]

_ALPHA_RANGE = (1e-6, 1e6)  # beyond, float32 draws are constant


def set_checked(target: object, name: str, value: object) -> None:
    """Sets a field of a frozen dataclass to its checked value, in ``__post_init__``."""
    object.__setattr__(target, name, value)


def checked_int(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Returns an integer (NumPy's too) as int; TypeError or ValueError if it is none in range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be an int, got {value!r}.")
    number = int(value)
    if number < low:
        raise ValueError(f"`{name}` must be at least {low}, got {value}.")
    if number > high:
        raise ValueError(f"`{name}` must be at most {high}, got {value}.")
    return number


def checked_number(name: str, value: Any) -> float:
    """Returns a finite number (NumPy's too) as float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite, got {value}.")
    return number


def checked_fraction(name: str, value: Any) -> float:
    """Returns a number in [0, 1]."""
    number = checked_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
    return number


def checked_numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """Returns `count` finite numbers as a tuple."""
    try:
        length = -1 if isinstance(values, (str, bytes)) else len(values)
    except TypeError:  # also of arrays without axes, which have __len__
        length = -1
    if length != count or not hasattr(values, "__iter__"):
        raise TypeError(f"`{name}` must be {count} numbers, got {values!r}.")
    return tuple(checked_number(name, value) for value in values)


def checked_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(f'"{c}"' for c in choices)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}.")


def checked_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be a bool, got {value!r}.")
    return value


def checked_alpha(name: str, value: Any, *, off: bool = False) -> float:
    """Returns the parameter of a Beta distribution; with `off` it may be 0."""
    alpha = checked_number(name, value)
    if not _ALPHA_RANGE[0] <= alpha <= _ALPHA_RANGE[1] and not (off and alpha == 0):
        rule = "0 or in [1e-6, 1e6]" if off else "in [1e-6, 1e6]"
        raise ValueError(f"`{name}` must be {rule}, got {alpha}.")
    return alpha


def checked_size(size: Any, *, axes: int = 2) -> tuple[int, ...]:
    """Returns (height, width) of images in pixels, or (depth, height, width) of volumes."""
    if not isinstance(size, (tuple, list)) or len(size) != axes:
        rule = "(height, width)" if axes == 2 else "(depth, height, width)"
        raise TypeError(f"`size` must be {rule}, got {size!r}.")
    return tuple(checked_int("size", side, 1) for side in size)


def checked_indices(name: str, indices: Any, count: int) -> list[int]:
    """Returns indices of some of `count` samples, one at least."""
    try:
        listed = list(indices)
    except TypeError:
        raise TypeError(f"`{name}` must be a sequence of indices, got {indices!r}.") from None
    if not listed:
        raise ValueError(f"`{name}` must have an index at least, got none.")
    return [checked_int(name, index, 0, count - 1) for index in listed]
