"""The lines of a list as they stand: path and label, both text, in each layout that is read.

Text is UTF-8, or UTF-16 with its mark; lines end as on any system, and empty ones are ignored.

    *.txt, *.lst, …   path, a tab or else a blank, label: paths may hold blanks, not at their ends
    *.lst of MXNet    index, tab, label, tab, path; the label is a whole number, maybe with zeros
    *.csv             path, label, as spreadsheets write them, separated by commas or semicolons

A first line that names the columns, such as ``path label``, is left out; in a CSV it says which of
the columns are read. So is a first line ``# classes: [...]``, see `listed`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence

__all__ = ["CLASSES", "first_text", "is_number", "rows", "rows_of_numbers"]

CLASSES = "# classes: "  # the start of a first line with names

_PATH_COLUMNS = {
    *("path", "paths", "file", "files", "filename", "filenames", "filepath", "filepaths"),
    *("image", "images", "imagepath", "imagename", "imagefile", "img", "imgpath", "imgname"),
}
_LABEL_COLUMNS = {
    *("label", "labels", "labelid", "class", "classid", "classname", "classes", "classindex"),
    *("category", "categoryid", "target", "targets"),
}

Row = tuple[int, str, str]


def rows(path: str) -> Iterator[Row]:
    """Yields (number of the line, path, label) of each line; "" where one of them is missing.

    Raises:
        ValueError: it is no text, or a CSV without the two columns.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".csv":
        return _of_csv(path)
    lines = _plain(path)
    if ending == ".lst" and _is_of_mxnet(path):
        lines = _of_mxnet(path)
    return lines


def rows_of_numbers(path: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yields (number of the line, path, texts of the numbers behind it) of each line.

    A tab, or else the first of the last words that are numbers, ends the path.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".csv":
        raise ValueError(
            f"{path!r} must be given as `targets`, and the folder of its images as `source`."
        )
    if ending == ".lst" and _is_of_mxnet(path):
        for number, name, label in _of_mxnet(path):
            yield number, name, [re.sub(r"\.0*$", "", cell) for cell in label.split("\t")]
        return
    for number, text in _entries(path):
        yield number, *_numbers_behind(text)


def _numbers_behind(text: str) -> tuple[str, list[str]]:
    if "\t" in text:
        name, _, rest = text.partition("\t")
        return name.strip(), [cell for cell in re.split(r"[\s,]+", rest.strip()) if cell]
    words, cells = re.split(r"( +)", text), list[str]()
    while len(words) > 1 and all(map(is_number, words[-1].split(","))):
        cells = words[-1].split(",") + cells
        del words[-2:]
    return "".join(words), cells


def first_text(path: str) -> str:
    """Returns the first line that is not empty, or "" where there is none."""
    return next((text for _, text in _texts(path)), "")


def _texts(path: str) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as start:
        utf_16 = start.read(2) in (b"\xff\xfe", b"\xfe\xff")  # as PowerShell writes it
    try:
        with open(path, encoding="utf-16" if utf_16 else "utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if text := line.strip():
                    yield number, text
    except UnicodeError as error:
        raise ValueError(f"{path!r} must be UTF-8 text: {error}. Save it as UTF-8.") from error


def _entries(path: str) -> Iterator[tuple[int, str]]:
    """Yields the lines but a first one with the names of the classes."""
    texts = _texts(path)
    for number, text in texts:
        if not text.startswith(CLASSES):
            yield number, text
        break
    yield from texts


def _plain(path: str) -> Iterator[Row]:
    first = True
    for number, text in _entries(path):
        name, _, label = text.rpartition("\t" if "\t" in text else " ")
        if first:
            first = False
            if _is(name, _PATH_COLUMNS) and _is(label, _LABEL_COLUMNS):
                continue
        yield number, name.rstrip(), label.lstrip()


def _is_of_mxnet(path: str) -> bool:
    index, *labels = first_text(path).split("\t")[:-1] or [""]
    return index.isdecimal() and bool(labels) and all(map(is_number, labels))


def _of_mxnet(path: str) -> Iterator[Row]:
    for number, text in _entries(path):
        parts = text.split("\t")
        # The index is not needed. Of several labels none is the label: they stay together.
        label = re.sub(r"\.0*$", "", "\t".join(parts[1:-1]))
        yield number, parts[-1], label


def _of_csv(path: str) -> Iterator[Row]:
    first = next(_entries(path), (0, ""))[1]
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for at, text in _entries(path):
            number = at
            yield text

    delimiter = ";" if ";" in first and "," not in first else ","
    table = csv.reader(texts(), delimiter=delimiter, skipinitialspace=True)
    columns: tuple[int, int] | None = None
    try:
        for cells in table:
            if columns is None:
                columns = _columns(path, cells)
                if any(_is(cell, _PATH_COLUMNS) for cell in cells):
                    continue
            if len(cells) <= max(columns):
                yield number, cells[0].strip(), ""
            else:
                yield number, cells[columns[0]].strip(), cells[columns[1]].strip()
    except csv.Error as error:
        raise ValueError(f"{path!r}, line {number}: must be CSV: {error}.") from error


def _columns(path: str, first: Sequence[str]) -> tuple[int, int]:
    """Returns the columns of path and label, by the names in the first line or else the two."""
    paths = [i for i, cell in enumerate(first) if _is(cell, _PATH_COLUMNS)]
    labels = [i for i, cell in enumerate(first) if _is(cell, _LABEL_COLUMNS)]
    if len(paths) == len(labels) == 1:
        return paths[0], labels[0]
    if paths or len(first) > 2:
        raise ValueError(
            f"{path!r}, line 1: must have two columns, path and label, or names of which one is "
            f"such as `path` and one such as `label`, got {', '.join(map(repr, first))}."
        )
    return 0, 1


def _is(cell: str, names: set[str]) -> bool:
    return re.sub(r"[\W_]", "", cell).lower() in names


def is_number(text: str) -> bool:
    """Returns whether text stands for a number, also one with a point."""
    try:
        float(text)
    except ValueError:
        return False
    return True
