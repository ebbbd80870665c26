"""Lists of images: a text file with one "path label" a line.

UTF-8; empty lines are ignored. A tab, or else the last blank, separates the label, so paths may
hold blanks, but not at their ends. Paths are relative to a root, which may be remote. A first line
``# classes: ["cat", "dog"]`` has the names of the labels, as JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dali_cutmix.data.formats.paths import is_remote
from dali_cutmix.data.targets import Targets, numbers_behind, targets_in_list

__all__ = [
    "Line",
    "class_line",
    "class_names_of",
    "is_there",
    "read_lines",
    "read_list",
    "read_target_list",
]

_CLASSES = "# classes: "


class Line(NamedTuple):
    """A line of a list: its number, the path within the root, the label with the offset added.

    `fault` says what is wrong with it, else it is None; then `missing` says whether that is that
    the file is not there.
    """

    number: int
    file: str
    label: int
    fault: str | None = None
    missing: bool = False


def class_line(classes: Sequence[str]) -> str:
    """Returns the first line of a list that names its classes."""
    return f"{_CLASSES}{json.dumps(list(classes), ensure_ascii=False)}"


def class_names_of(path: str) -> tuple[str, ...] | None:
    """Returns the names in the first line of a list, or None where it has none."""
    first = next((text for _, text in _texts(path)), "")
    if not first.startswith(_CLASSES):
        return None
    try:
        names = json.loads(first[len(_CLASSES) :])
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path!r}, line 1: must have names as JSON, got {first!r}.")
    return tuple(names)


def read_list(
    path: str, root: str, label_offset: int, *, repeated: bool = False
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...] | None]:
    """Returns the files, as paths within the root, the labels with the offset added, and the
    names of the classes where the list has them.

    Raises:
        FileNotFoundError: a file is missing; remote ones are not looked for.
        ValueError: a line has no path or label, lies outside the root, names an image again, or
            its label is negative or above 2^31 - 1; or there are none.
    """
    lines = list(read_lines(path, root, label_offset, repeated=repeated))
    for line in lines:
        if line.fault is not None:
            error = FileNotFoundError if line.missing else ValueError
            raise error(f"{path!r}, line {line.number}: {line.fault}.")
    if not lines:
        raise ValueError(f'{path!r} must hold at least one line "path label", got none.')
    names, labels = class_names_of(path), tuple(line.label for line in lines)
    if names is not None and len(names) <= max(labels):
        raise ValueError(f"{path!r}, line 1: must name class {max(labels)}, has {len(names)}.")
    return tuple(line.file for line in lines), labels, names


def read_target_list(
    path: str, root: str, kind: str | None, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], Targets | None, tuple[int, ...]]:
    """Returns the files of a list with numbers behind each path, and their `data.targets`.

    Args:
        kind: ``"labels"`` or ``"rows"``, see `targets.targets_in_list`; None: of no interest, and
            need not be there.

    Raises:
        FileNotFoundError, ValueError: as for `read_list`, but an image may be named again.
    """
    files: list[str] = []
    numbers: list[tuple[int, Sequence[str]]] = []
    there: dict[str, set[str]] = {}
    for number, text in _texts(path):
        if number == 1 and text.startswith(_CLASSES):
            continue
        name, cells = numbers_behind(text)
        line = _parsed(number, f"{name}\t0", root, 0)
        if line.fault is not None:
            raise ValueError(f"{path!r}, line {number}: {line.fault}.")
        if not is_remote(root) and not is_there(root, line.file, there):
            whole = os.path.join(root, line.file)
            raise FileNotFoundError(f"{path!r}, line {number}: {whole!r} must be a file, is none.")
        files.append(line.file)
        numbers.append((number, cells))
    if not files:
        raise ValueError(f"{path!r} must hold at least one line, got none.")
    if kind is None:
        return tuple(files), None, ()
    names = class_names_of(path) if classes is None else classes
    return tuple(files), *targets_in_list(numbers, path, kind, names)


def read_lines(
    path: str, root: str, label_offset: int, *, repeated: bool = False
) -> Iterator[Line]:
    """Yields each line that is not empty, also the faulty ones; ValueError if it is no text."""
    seen: dict[str, int] = {}
    there: dict[str, set[str]] = {}
    for number, text in _texts(path):
        if number == 1 and text.startswith(_CLASSES):
            continue
        line = _parsed(number, text, root, label_offset)
        if line.fault is None and line.file in seen:
            if repeated:
                yield line
                continue
            fault = (
                f"must name every image once, got {line.file!r} as in line {seen[line.file]}; "
                "for a list that is to repeat images read with find_source(…, repeated=True)"
            )
            line = line._replace(fault=fault)
        elif line.fault is None:
            seen[line.file] = number
            if not is_remote(root) and not is_there(root, line.file, there):
                whole = os.path.join(root, line.file)
                line = line._replace(fault=f"{whole!r} must be a file, is none", missing=True)
        yield line


def _texts(path: str) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path!r} must be UTF-8 text: {error}.") from error


def _parsed(number: int, text: str, root: str, label_offset: int) -> Line:
    """Returns the path within the root, and the label, of a line."""
    name, _, digits = text.rpartition("\t" if "\t" in text else " ")
    name = name.strip()
    if not name or not re.fullmatch(r"[+-]?[0-9]{1,18}", digits):
        fault = f'must be "path label" with an integer label, got {text!r}'
        return Line(number, name, -1, fault)
    label = int(digits) + label_offset
    if name[0] in "/." or "//" in name or "/." in name:
        # In an address ".." has no meaning: any folder stands for it.
        base = "/\N{REPLACEMENT CHARACTER}/" if is_remote(root) else root.rstrip("/") + "/"
        whole = os.path.normpath(os.path.join(base, name))
        if not whole.startswith(base):
            fault = (
                f"must lie in {root!r}, got {name!r}; for paths that begin elsewhere read with "
                "find_source(…, file_root=…)"
            )
            return Line(number, name, label, fault)
        name = whole[len(base) :]
    if not 0 <= label < 2**31:
        fault = f"the label with `label_offset` must be at least 0, got {label}"
        return Line(number, name, label, fault)
    return Line(number, name, label)


def is_there(root: str, file: str, there: dict[str, set[str]]) -> bool:
    """Returns whether a file is in a root; `there` has the folders that were listed before.

    Each is listed once: a million single look-ups take minutes on a network disk.
    """
    folder, name = os.path.split(file)
    if folder not in there:
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                there[folder] = {e.name for e in entries if not e.is_dir()}
        except (FileNotFoundError, NotADirectoryError):
            there[folder] = set()
    return name in there[folder]
