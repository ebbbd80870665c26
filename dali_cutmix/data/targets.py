"""Targets beyond one class per image: several labels, rows of numbers, regression.

    several labels    names, "cat dog" or ["cat", "dog"]     a row of 0 and 1, a column per class
    rows              numbers, one-hot, soft or any          the row as it is
    regression        one number                             a row of one number

They come beside a folder or files as a CSV or JSON file, a mapping or an array, or stand in a list
behind the paths. Different rows are kept once, in a table that is part of the graph; the label that
the reader gives is the number of its row.
"""

from __future__ import annotations

import csv
import hashlib
import json
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix._rules import warn
from dali_cutmix._validation import checked_number
from dali_cutmix.data.folders import is_image_name
from dali_cutmix.data.formats.lines import is_number

__all__ = [
    "IN_LIST",
    "Targets",
    "look_up",
    "targets_in_list",
    "targets_of_files",
]

IN_LIST = ("labels", "rows")
_MOST_NUMBERS = 10_000_000  # DALI takes some 300 bytes for each while a graph is built
_BITS = 31  # of an int32, that are not its sign
_WHOLE = (
    "`targets` of whole numbers other than 0 and 1 must be floats (3.0), got whole numbers: class "
    "labels are given as a list or as (path, label) samples, several labels by their names "
    '(["cat", "dog"] or ["3", "17"]).'
)
_SEPARATORS = re.compile(r"\s*[|;,]\s*")


class Targets:
    """A table of different rows, as it is in the graph.

    Attributes:
        words: float32 (M, K), or where all numbers are 0 or 1 their bits, int32 (M, words).
        columns: K.
        packed: whether they are bits.
        names: of the columns, where they have names.
        digest: short text that is equal for equal tables.
    """

    def __init__(
        self, words: NDArray[Any], columns: int, packed: bool, names: Sequence[str] | None
    ) -> None:
        self.words, self.columns, self.packed = words, columns, packed
        self.names = None if names is None else tuple(names)
        facts = words.tobytes() + repr((columns, packed, self.names)).encode()
        self.digest = hashlib.sha256(facts).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Targets) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Targets: {self.columns} columns, {len(self.words)} different rows>"

    @classmethod
    def of(cls, rows: Any, names: Sequence[str] | None = None) -> tuple[Targets, tuple[int, ...]]:
        """Returns the table, and for each of the rows, float (N, K), its number in it.

        Raises:
            ValueError: a number is not finite, or the table is too large for a graph.
        """
        every = np.ascontiguousarray(rows, np.float32)
        if not np.isfinite(every).all():
            raise ValueError("`targets` must be finite numbers, got nan or infinity.")
        if ((every == 0) | (every == 1)).all():
            return cls.of_labels(
                [np.flatnonzero(row).tolist() for row in every], every.shape[1], names
            )
        first: dict[bytes, int] = {}
        numbers = tuple(first.setdefault(row.tobytes(), len(first)) for row in every)
        _check_size(len(first), every.shape[1], every.shape[1])
        table = np.frombuffer(b"".join(first), np.float32).reshape(len(first), -1)
        return cls(table, every.shape[1], False, names), numbers

    @classmethod
    def of_labels(
        cls, labels: Sequence[Iterable[int]], columns: int, names: Sequence[str] | None = None
    ) -> tuple[Targets, tuple[int, ...]]:
        """Returns the table of rows of 0 and 1, which are 1 where the labels of each row say so."""
        first: dict[tuple[int, ...], int] = {}
        numbers = tuple(first.setdefault(tuple(sorted(set(one))), len(first)) for one in labels)
        width = -(-columns // _BITS)
        _check_size(len(first), columns, width)
        words = np.zeros((len(first), width), np.int32)
        for row, one in zip(words, first, strict=True):
            for label in one:
                row[label // _BITS] |= np.int32(1 << label % _BITS)
        return cls(words, columns, True, names), numbers


def _check_size(rows: int, columns: int, width: int) -> None:
    if rows * width > _MOST_NUMBERS:
        raise ValueError(
            f"`targets` must be at most {_MOST_NUMBERS:,} numbers in different rows, got "
            f"{rows:,} rows of {columns:,}. (Rows of 0 and 1 count for less.)"
        )


@graph_function
def look_up(number: DataNode, targets: Targets) -> DataNode:
    """Returns a row of the table, float32 (K,), on the CPU.

    Args:
        number: int32 (1,), of the row.
    """
    row = fn.slice(
        types.Constant(targets.words), start=fn.reshape(number, shape=[1]), shape=[1], axes=[0]
    )
    if not targets.packed:
        return fn.reshape(row, shape=[targets.columns])
    powers = types.Constant(1 << np.arange(_BITS, dtype=np.int32)[None])
    bits = fn.reshape(fn.reshape(row, shape=[-1, 1]) & powers, shape=[-1])
    if targets.columns % _BITS:
        bits = fn.slice(bits, start=[0], shape=[targets.columns], axes=[0])
    return fn.cast(bits != 0, dtype=types.FLOAT)


# From files, mappings and arrays


def targets_of_files(
    given: Any, files: Sequence[str], root: str, classes: Sequence[str] | None
) -> tuple[Targets, tuple[int, ...]]:
    """Returns the table, and for each file the number of its row.

    Args:
        given: the path of a CSV or JSON file; a mapping from file to value; or an array of a row,
            or a number, per file. A value is a number, a row of numbers, names, or one text of
            names: separated by ``|``, ``;`` or ``,`` where any text has one of these, else by
            blanks.
        files: paths within `root`.
        classes: names of the labels by column, or of the columns; a CSV's columns are put in their
            order. By default the names that come, sorted; names that are all numbers are the
            numbers of the columns.

    Raises:
        TypeError: `given` is nothing of that.
        ValueError: an image has no value, or values are not of one kind.
    """
    if isinstance(given, Mapping):
        return _of_values(_matched(dict(given), files, root, "targets"), classes, "targets")
    if isinstance(given, (str, os.PathLike)):
        path = os.fspath(given)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"`targets` must be an existing file (or a mapping, or an array), got {path!r}."
            )
        read, names = _read_json(path) if path.lower().endswith(".json") else _read_csv(path)
        values = _matched(read, files, root, path)
        if names is None:
            return _of_values(values, classes, path)
        return Targets.of(*_in_order(values, names, classes, path))
    rows = np.asarray(given)
    if rows.dtype.kind not in "biuf" or rows.ndim not in (1, 2):
        raise TypeError(
            "`targets` must be a CSV or JSON file, a mapping from file to value, or an array of "
            f"numbers, (N,) or (N, K), got {type(given).__name__}."
        )
    if rows.dtype.kind in "iu" and (rows.ndim == 1 or not np.isin(rows, (0, 1)).all()):
        raise ValueError(_WHOLE)
    if len(rows) != len(files):
        raise ValueError(
            f"`targets` must have a row for each of the {len(files)} images, got {len(rows)}."
        )
    rows = rows.reshape(len(rows), -1)
    return Targets.of(rows, _checked_names(classes, rows.shape[1]))


def _read_json(path: str) -> tuple[dict[str, Any], None]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            values = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path!r} must be JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f'{path!r} must be an object {{"file": value, …}}, got another value.')
    return values, None


def _read_csv(path: str) -> tuple[dict[str, Any], list[str] | None]:
    """Returns value by file, and the names of the columns where they are numbers.

    The first column has the files. A header is needed where the others are numbers, for it names
    them.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",\t;", key=first.count)
            lines = [line for line in csv.reader(file, delimiter=delimiter) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path!r} must be CSV in UTF-8: {error}.") from error
    if lines and is_image_name(lines[0][0].strip()):
        raise ValueError(f"{path!r} must begin with a line that names the columns: {lines[0]!r}.")
    if len(lines) < 2 or len(lines[0]) < 2:
        raise ValueError(
            f"{path!r} must have a header and lines: a column of files, and one or more of values."
        )
    header, *lines = lines
    if len({*header}) < len(header):
        raise ValueError(f"{path!r} must have different names of columns, got {header}.")
    values: dict[str, Any] = {}
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise ValueError(f"{path!r}, line {number}: must have {len(header)} values: {line!r}.")
        name, *cells = (cell.strip() for cell in line)
        if name in values:
            raise ValueError(f"{path!r}, line {number}: must name every file once, got {name!r}.")
        values[name] = cells
    if len(header) == 2 and all(cell.isdecimal() for (cell,) in values.values()):
        raise ValueError(f"{path!r}: {_WHOLE}")
    if all(is_number(cell) for cells in values.values() for cell in cells):
        rows = {name: [float(cell) for cell in cells] for name, cells in values.items()}
        return rows, [name.strip() for name in header[1:]]
    if len(header) > 2:
        wrong = next(
            (name, cell) for name, cells in values.items() for cell in cells if not is_number(cell)
        )
        raise ValueError(
            f"{path!r} must have numbers in its columns, or one column of names, got {wrong[1]!r} "
            f"for {wrong[0]!r}."
        )
    return {name: cell for name, (cell,) in values.items()}, None


def _in_order(
    rows: list[Any], names: list[str], classes: Sequence[str] | None, path: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Returns the rows with their columns in the order of the classes."""
    order = names if classes is None else list(classes)
    if set(order) != set(names):
        other = sorted(set(order) ^ set(names))
        raise ValueError(
            f"`classes` must be the columns of {path!r}, got {len(order)} names that differ in "
            f"{', '.join(map(repr, other[:5]))}."
        )
    return np.array(rows)[:, [names.index(name) for name in order]], order


def _matched(values: dict[str, Any], files: Sequence[str], root: str, where: str) -> list[Any]:
    """Returns the value of each file: by its path, or its name, or its name without extension."""
    keys: list[Callable[[str], str]] = [
        lambda file: file,
        os.path.basename,
        lambda file: os.path.splitext(os.path.basename(file))[0],
    ]
    given = {_within(str(name), root): value for name, value in values.items()}
    if len(given) < len(values):
        raise ValueError(f"{where!r} must name every file once.")
    missing: list[str] = []
    for key in keys:
        named = [key(file) for file in files]
        lacking = [file for file, name in zip(files, named, strict=True) if name not in given]
        if not lacking and len(set(named)) == len(set(files)):
            unused = len(given.keys() - set(named))
            if unused:
                warn(f"{unused} of {len(given)} entries of {where!r} name no image of the data.")
            return [given[name] for name in named]
        missing = missing or lacking
    raise ValueError(
        f"{where!r} must have a value for each of the {len(files)} images, lacks "
        f"{len(missing)}: {', '.join(map(repr, missing[:3]))}{', …' if len(missing) > 3 else ''}."
    )


def _within(name: str, root: str) -> str:
    """Returns the path of a file within the root, as far as its name tells."""
    name = name.replace("\\", "/")
    if os.path.isabs(name):
        return os.path.relpath(os.path.normpath(name), root)
    return os.path.normpath(name)


def _of_values(
    values: Sequence[Any], classes: Sequence[str] | None, where: str
) -> tuple[Targets, tuple[int, ...]]:
    if all(isinstance(value, str) or _is_names(value) for value in values):
        return _several_labels(_split(values, where), classes)
    if all(isinstance(value, numbers.Integral) for value in values):
        raise ValueError(_WHOLE)
    rows = [value if _is_row(value) else [value] for value in values]
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ValueError(
            f"`targets` must be rows of one length, got {', '.join(map(str, sorted(lengths)))}. "
            'Several labels are given by their names: ["cat", "dog"], or ["0", "7"].'
        )
    every = [number for row in rows for number in row]
    if all(isinstance(number, numbers.Integral) for number in every) and not {*every} <= {0, 1}:
        raise ValueError(_WHOLE)
    table = [[checked_number("targets", number) for number in row] for row in rows]
    return Targets.of(table, _checked_names(classes, len(table[0])))


def _is_row(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)


def _is_names(value: Any) -> bool:
    return _is_row(value) and all(isinstance(name, str) for name in value)


def _split(values: Sequence[Any], where: str) -> list[list[str]]:
    """Returns the names in each value."""
    texts = [value for value in values if isinstance(value, str)]
    if any(_SEPARATORS.search(text) for text in texts):
        separator = _SEPARATORS
    else:
        separator = re.compile(r"\s+")
        parted = next((text for text in texts if len(text.split()) > 1), None)
        if parted is not None:
            warn(
                f"the labels of {where!r} are separated by blanks: {parted!r} are "
                f"{len(parted.split())} labels. Where names hold blanks separate them by |."
            )
    return [
        [name for name in separator.split(value.strip()) if name]
        if isinstance(value, str)
        else list(value)
        for value in values
    ]


def _several_labels(
    names: Sequence[Sequence[str]], classes: Sequence[str] | None
) -> tuple[Targets, tuple[int, ...]]:
    known = sorted({name for one in names for name in one}) if classes is None else list(classes)
    if not known:
        raise ValueError("`targets` must have at least one label, got none for any image.")
    if classes is None and all(name.isdecimal() for name in known):
        return Targets.of_labels([[*map(int, one)] for one in names], max(map(int, known)) + 1)
    column = {name: k for k, name in enumerate(known)}
    unknown = next((name for one in names for name in one if name not in column), None)
    if unknown is not None:
        raise ValueError(f"`classes` must name every label, lacks {unknown!r}.")
    return Targets.of_labels([[column[name] for name in one] for one in names], len(known), known)


def _checked_names(classes: Sequence[str] | None, columns: int) -> Sequence[str] | None:
    if classes is not None and len(classes) != columns:
        raise ValueError(
            f"`classes` must name the {columns} columns of the targets, got {len(classes)} names."
        )
    return classes


# In a list


def targets_in_list(
    lines: Iterable[tuple[int, Sequence[str]]], path: str, kind: str, classes: Sequence[str] | None
) -> tuple[Targets, tuple[int, ...]]:
    """Returns the table, and for each line of a list the number of its row.

    Args:
        lines: number of each line, and the texts of the numbers in it.
        path: of the list.
        kind: ``"labels"``: the numbers are those of labels, from 0; ``"rows"``: they are the row.

    Raises:
        ValueError: a line has no numbers, or rows are of several lengths.
    """
    rows: list[list[float]] = []
    for number, cells in lines:
        where = f"{path!r}, line {number}"
        if kind == "labels" and not all(cell.isdecimal() for cell in cells):
            raise ValueError(f"{where}: labels must be whole numbers from 0, got {cells!r}.")
        if kind == "rows" and (not cells or (rows and len(cells) != len(rows[0]))):
            expected = len(rows[0]) if rows else "at least one"
            raise ValueError(
                f"{where}: must have {expected} number(s) behind the path, got {len(cells)}. "
                "(A tab separates a path that holds blanks.)"
            )
        rows.append([float(cell) for cell in cells])
    if kind == "rows":
        return Targets.of(rows, _checked_names(classes, len(rows[0])))
    labels = [[int(number) for number in row] for row in rows]
    most = max((label for one in labels for label in one), default=-1) + 1
    count = most if classes is None else len(classes)
    if most > count or count == 0:
        raise ValueError(f"`classes` must name the {most} labels of {path!r}, got {count} names.")
    return Targets.of_labels(labels, count, classes)
