"""Files and their masks, paired by name: of images and of volumes.

The mask of ``x/1.jpg`` is ``x/1.png`` of the other folder. Where names differ, the ends of both say
how: ``_leftImg8bit.png`` and ``_gtFine_labelIds.png``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from dali_cutmix._rules import warn

__all__ = ["by_ends", "check_lacking", "warn_unused"]

Kind = Literal["image", "volume"]
_SHOWN = 3


def by_ends(
    files: Sequence[str], there: Collection[str], of_file: str, of_mask: str, kind: Kind
) -> list[str | None]:
    """Returns the mask of each file, by how both names end; None where it is not there.

    Raises:
        ValueError: a file does not end so.
    """
    others = [file for file in files if not file.endswith(of_file)]
    if others:
        raise ValueError(f"`mask_names` must end every {kind}, {of_file!r}, got {_listed(others)}.")
    masks, names = {*there}, [file[: len(file) - len(of_file)] + of_mask for file in files]
    return [name if name in masks else None for name in names]


def check_lacking(
    lacking: Sequence[str], count: int, root: str, there: Collection[str], kind: Kind
) -> None:
    """Raises FileNotFoundError where some of `count` files have no mask in a folder."""
    if lacking:
        found = _listed(sorted(there)) or "no masks"
        raise FileNotFoundError(
            f"`masks` must have a mask for each of the {count} {kind}s, {root!r} lacks "
            f"{len(lacking)}: {_listed(lacking)}; it has {found}. (Where names end differently "
            "`mask_names` says how.)"
        )


def warn_unused(unused: Sequence[str], root: str, kind: Kind) -> None:
    """Warns of masks that belong to no file."""
    if unused:
        warn(f"{len(unused)} mask(s) of {root!r} belong to no {kind}: {_listed(unused)}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
