"""Lists of images: a path and a label a line, in the layouts of `lines`.

Paths are relative to a root, which may be remote. Labels are whole numbers, or else the names of
classes, which are then numbered in the order of text. A first line ``# classes: ["cat", "dog"]``
has the names of the labels, as JSON.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dali_cutmix.data.folders import is_image_name
from dali_cutmix.data.formats.lines import CLASSES, first_text, is_number, rows, rows_of_numbers
from dali_cutmix.data.formats.paths import is_remote
from dali_cutmix.data.targets import Targets, targets_in_list

__all__ = [
    "Line",
    "class_line",
    "class_names_of",
    "is_there",
    "read_lines",
    "read_list",
    "read_target_list",
]

_OF_MXNET = "a list of MXNet, of index, label and path, is read from *.lst"
_SEVERAL = (
    'several labels are read with find_source(…, targets="labels"), other numbers with '
    'targets="rows"'
)
_integer = re.compile(r"[+-]?[0-9]{1,18}").fullmatch


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
    return f"{CLASSES}{json.dumps(list(classes), ensure_ascii=False)}"


def class_names_of(path: str) -> tuple[str, ...] | None:
    """Returns the names in the first line of a list, or else those that its labels are, sorted.

    None where it has neither.
    """
    names = _names_in(first_text(path), path)
    if names is None and _has_names(path):
        names = tuple(sorted({label for _, _, label in rows(path) if _is_name(label)}))
    return names


def _names_in(first: str, path: str) -> tuple[str, ...] | None:
    """Returns the names in the first line of a list, where it has them."""
    if not first.startswith(CLASSES):
        return None
    try:
        names = json.loads(first[len(CLASSES) :])
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path!r}, line 1: must have names as JSON, got {first!r}.")
    return tuple(names)


def read_list(
    path: str,
    root: str,
    label_offset: int,
    *,
    repeated: bool = False,
    classes: Sequence[str] | None = None,
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...] | None]:
    """Returns the files, as paths within the root, the labels with the offset added, and the
    names of the classes where the list has them.

    `classes` numbers labels that are names, in place of the order of text.

    Raises:
        FileNotFoundError: a file is missing; remote ones are not looked for.
        ValueError: a line has no path or label, lies outside the root, names an image again, or
            its label is negative, above 2^31 - 1, or none of the classes; or there are none.
    """
    lines = list(read_lines(path, root, label_offset, repeated=repeated, classes=classes))
    for line in lines:
        if line.fault is not None:
            error = FileNotFoundError if line.missing else ValueError
            raise error(f"{path!r}, line {line.number}: {line.fault}.")
    if not lines:
        raise ValueError(f'{path!r} must hold at least one line "path label", got none.')
    names, labels = class_names_of(path), tuple(line.label for line in lines)
    if classes is not None and _has_names(path):
        names = tuple(classes)
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
    # Of "path label", whose label may be a name.
    paths = {} if kind is not None else {number: name for number, name, _ in rows(path)}
    for number, name, cells in rows_of_numbers(path):
        if paths.get(number) and not is_there(root, name, there):
            name = paths[number]
        line = _parsed(number, name, "0", root, 0)
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
    names = _names_in(first_text(path), path) if classes is None else classes
    return tuple(files), *targets_in_list(numbers, path, kind, names)


def read_lines(
    path: str,
    root: str,
    label_offset: int,
    *,
    repeated: bool = False,
    classes: Sequence[str] | None = None,
) -> Iterator[Line]:
    """Yields each line that is not empty, also the faulty ones; ValueError if it is no text."""
    seen: dict[str, int] = {}
    there: dict[str, set[str]] = {}
    numbers = _numbers(path, classes, label_offset)
    for number, name, text in rows(path):
        line = _parsed(number, name, text, root, label_offset, numbers)
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
                fault = f"{whole!r} must be a file, is none{_hint_for_file(root, line.file)}"
                line = line._replace(fault=fault, missing=True)
        yield line


def _has_names(path: str) -> bool:
    """Returns whether the labels of a list are names of classes, as the first one tells."""
    _, name, label = next(rows(path), (0, "", ""))
    return bool(name) and _is_name(label)


def _is_name(label: str) -> bool:
    several = re.search(r"[|;\t]", label) or all(map(is_number, label.split(",")))
    return bool(label) and not several and not _is_path(label)


def _is_path(text: str) -> bool:
    return is_image_name(text.split(",")[0]) or "/" in text


def _numbers(path: str, classes: Sequence[str] | None, label_offset: int) -> dict[str, int] | None:
    """Returns the label of each name where the labels of a list are names, else None."""
    if not _has_names(path):
        return None
    if label_offset:
        raise ValueError(
            f"`label_offset` must be 0 where labels are names, as in {path!r}, got {label_offset}."
        )
    names = class_names_of(path) if classes is None else classes
    return {name: number for number, name in enumerate(names or ())}


def _parsed(
    number: int,
    name: str,
    text: str,
    root: str,
    label_offset: int,
    numbers: dict[str, int] | None = None,
) -> Line:
    """Returns the path within the root, and the label, of a line.

    `text` is the label as it stands, and `numbers` has the label of each name where labels are
    names.
    """
    if numbers is not None and name and text in numbers:
        label = numbers[text]
    elif numbers is not None or not name or not _integer(text):
        return Line(number, name, -1, _fault_of_entry(name, text, numbers))
    else:
        label = int(text) + label_offset
    if name[0] in '/."\ufeff' or "//" in name or "/." in name:
        name = name.lstrip("\ufeff")  # within a list that was put together of several
        if len(name) > 2 and name[0] == name[-1] == '"':
            name = name[1:-1]
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


def _fault_of_entry(name: str, text: str, numbers: dict[str, int] | None) -> str:
    """Returns what is wrong with a line whose label, or path, is not read."""
    got = f"{name} {text}" if name and text else name or text
    if numbers is not None and name and _is_name(text):
        return f"must have the name of a class as its label, got {text!r}, not in `classes`"
    wanted = "an integer label" if numbers is None else "the name of a class, as the first line has"
    fault = f'must be "path label" with {wanted}, got {got!r}'
    if got.startswith("#"):
        return f"{fault}; comments are not read, remove them"
    if "\xa0" in got:
        return f"{fault}; it has a no-break space, which separates nothing"
    if is_number(re.split(r"\s", name)[0]) and _is_path(text):
        return fault + "; " + (_OF_MXNET if "\t" in name else "the label comes last")
    if name and (re.search("[|;]", text) or all(map(is_number, text.split(",")))):
        return f"{fault}; {_SEVERAL}"
    if "," in got:
        return f"{fault}; values separated by commas are read from *.csv"
    if is_image_name(got):
        return f"{fault}, which has no label"
    return fault


def _hint_for_file(root: str, name: str) -> str:
    """Returns what may be meant by the name of a file that is not there."""
    if "\\" in name:
        return "; folders are separated by /, not by a backslash"
    if "\0" in name:
        return "; the list is no UTF-8, nor UTF-16 with its mark: save it as UTF-8"
    if name.startswith("#"):
        return "; comments are not read, remove them"
    if name.endswith(","):
        return "; values separated by commas are read from *.csv"
    for form in ("NFC", "NFD"):
        if os.path.exists(os.path.join(root, unicodedata.normalize(form, name))):
            return f"; it is there by a name in Unicode's {form}: write that one"
    first, *_, last = re.split(r"[ \t]", name) if re.search(r"[ \t]", name) else ("", "")
    if is_number(first) and "\t" in name:
        return f"; {_OF_MXNET}"
    if is_number(last):
        return f"; {_SEVERAL}"
    if is_image_name(first):
        return "; names with blanks are separated from the path by a tab"
    if "." not in name and "/" not in name:
        return '; a line is "path label", and names of the columns are to be removed'
    return ""


def is_there(root: str, file: str, there: dict[str, set[str]]) -> bool:
    """Returns whether a file is in a root; `there` has the folders that were listed before.

    Each is listed once: a million single look-ups take minutes on a network disk.
    """
    folder, name = os.path.split(file)
    if folder not in there:
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                there[folder] = {e.name for e in entries if not e.is_dir()}
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a name with a zero byte
            there[folder] = set()
    return name in there[folder]
