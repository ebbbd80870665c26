"""Lists of images: a text file with one "path label" a line.

UTF-8; empty lines are ignored. A tab, or else the last blank, separates the label, so paths may
hold blanks, but not at their ends. Paths are relative to a root, which may be remote.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dali_cutmix.formats.paths import is_remote

__all__ = ["read_list"]


def read_list(path: str, root: str, label_offset: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns the files, as paths within the root, and the labels with the offset added.

    Raises:
        FileNotFoundError: a file is missing; remote ones are not looked for.
        ValueError: a line has no path or label, lies outside the root, names an image again, or
            its label is negative or above 2^31 - 1; or there are none.
    """
    files: dict[str, int] = {}
    labels = []
    for number, line in _lines(path):
        file, label = _entry(path, number, line, root)
        if file in files:
            raise ValueError(
                f"{path!r} must name every image once, got {file!r} in lines "
                f"{files[file]} and {number}."
            )
        label += label_offset
        if not 0 <= label < 2**31:
            raise ValueError(
                f"{path!r}, line {number}: the label with `label_offset` must be at least 0, "
                f"got {label}."
            )
        files[file] = number
        labels.append(label)
    if not files:
        raise ValueError(f'{path!r} must hold at least one line "path label", got none.')
    if not is_remote(root):
        _check_exist(path, root, files)
    return tuple(files), tuple(labels)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} must be UTF-8 text: {error}.") from error


def _entry(path: str, number: int, line: str, root: str) -> tuple[str, int]:
    """Returns the path within the root, and the label, of a line."""
    name, _, label = line.rpartition("\t" if "\t" in line else " ")
    name = name.strip()
    if not name or not re.fullmatch(r"[+-]?[0-9]{1,18}", label):
        raise ValueError(
            f'{path!r}, line {number}: must be "path label" with an integer label, got {line!r}.'
        )
    if name[0] in "/." or "//" in name or "/." in name:
        # In an address ".." has no meaning: any folder stands for it.
        base = "/\N{REPLACEMENT CHARACTER}/" if is_remote(root) else root.rstrip("/") + "/"
        whole = os.path.normpath(os.path.join(base, name))
        if not whole.startswith(base):
            raise ValueError(
                f"{path!r}, line {number}: must lie in {root!r}, got {name!r}. "
                "For paths that begin elsewhere pass `file_root`."
            )
        name = whole[len(base) :]
    return name, int(label)


def _check_exist(path: str, root: str, files: dict[str, int]) -> None:
    # Each folder is listed once: a million single look-ups take minutes on a network disk.
    there: dict[str, set[str]] = {}
    for file, number in files.items():
        folder, name = os.path.split(file)
        if folder not in there:
            try:
                with os.scandir(os.path.join(root, folder)) as entries:
                    there[folder] = {e.name for e in entries if not e.is_dir()}
            except (FileNotFoundError, NotADirectoryError):
                there[folder] = set()
        if name not in there[folder]:
            whole = os.path.join(root, file)
            raise FileNotFoundError(f"{path!r}, line {number}: {whole!r} must be a file, is none.")
