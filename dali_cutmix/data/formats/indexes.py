"""The index of a shard, a small text file that says where each record lies: found, made, checked.

It has the format of DALI's wds2idx, tfrecord2idx and rec2idx, whose files are taken as they are:
a line a record, for TFRecord "offset size", for RecordIO "number<tab>offset", and for a tar, after
a line "v1.2 <number of samples>", "extension offset size name" of each file of a sample.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dali_cutmix.data.atomic import atomic_write
from dali_cutmix.data.formats import recordio, tars, tfrecords
from dali_cutmix.data.formats.compression import compression
from dali_cutmix.data.formats.paths import (
    INDEXED,
    Kind,
    Paths,
    first_repeated,
    is_remote,
    join,
    kind_by_name,
    path_text,
)

Progress = Callable[[int, int], object]

__all__ = [
    "Progress",
    "check_start",
    "checked_size",
    "difference",
    "find_indexes",
    "fits",
    "make_all",
    "make_index",
    "new_index",
    "samples",
    "without",
]

_SPOTS = 64  # records read where an index is checked, over all files; at least 3 a file

_FORMATS = {"webdataset": tars, "tfrecord": tfrecords, "recordio": recordio}
_NAMES = {"webdataset": "a tar file", "tfrecord": "a TFRecord file", "recordio": "a RecordIO file"}


# --- where an index lies


def new_index(path: str, folder: str | None) -> str:
    """Returns where a new index goes: x.tar.idx, so that x.tar and x.rec have one each."""
    own, name = os.path.split(path)
    return join(own if folder is None else folder, name + ".idx")


def find_indexes(paths: Sequence[str], kind: str, folder: str | None) -> list[str]:
    """Returns where the index of each shard is, or else where it is to be made."""
    found = []
    for path in paths:
        own, name = os.path.split(path)
        where = own if folder is None else folder
        names = [name + ".idx"]
        if kind != "tfrecord" or re.search(r"\.tf\w+$", name):
            names.append(os.path.splitext(name)[0] + ".idx")
        if kind == "webdataset":  # the default of wds2idx
            names.append(name.partition(".")[0] + ".idx")
        if folder is not None and os.path.realpath(folder) != os.path.realpath(own or "."):
            names.append(name)
        candidates = [join(where, n) for n in names]
        there = (c for c in candidates if not is_remote(c) and os.path.isfile(c))
        found.append(next(there, candidates[0]))
    twice = first_repeated(found)
    if twice is not None:
        shared = [p for p, of in zip(paths, found, strict=True) if of == twice]
        raise ValueError(
            f"the shards must have an index each, got {twice!r} for {shared[0]!r} and "
            f"{shared[1]!r}: rename it to <shard>.idx, or keep the indexes of each folder apart."
        )
    return found


# --- making one


def make_index(
    path: Paths,
    index_path: Paths | None = None,
    *,
    progress: Progress | None = None,
) -> str:
    """Returns the path of the index made of one shard, by default the shard's plus ``.idx``.

    The file appears complete or not at all, also where several processes make it. `progress` is
    called with (bytes done, bytes in all).

    Raises:
        PermissionError: the folder cannot be written.
        FileNotFoundError, ValueError: the shard is missing, damaged or of no known kind.
    """
    shard: str = path_text(path)
    kind = kind_by_name(shard)
    if kind not in INDEXED:
        raise ValueError(f"`path` must be *.tar, *.rec or a TFRecord, got {shard!r}.")
    target: str = path_text(index_path, "index_path") or new_index(shard, None)
    check_start(kind, shard)
    total = _length(shard)
    lines: list[str] = []
    with open(shard, "rb") as file:
        for done, line in _FORMATS[kind].scan(shard, file, total):
            if progress is not None and len(lines) % 1000 == 0:
                progress(done, total)
            lines.append(line)
    if not lines:
        raise ValueError(f"{shard!r} must hold at least one record, got none.")
    if kind == "webdataset":
        lines.insert(0, f"v1.2 {len(lines)}\n")
    _write(target, "".join(lines))
    if progress is not None:
        progress(total, total)
    return target


def make_all(wanted: list[tuple[str, str]], progress: Progress | None) -> list[str]:
    """Returns the paths of the indexes made, of (shard, index) each; `progress` is of them all."""
    total = sum(os.path.getsize(path) for path, _ in wanted)
    before = 0
    made = []
    for path, index_path in wanted:

        def inner(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        made.append(make_index(path, index_path, progress=inner))
        before += os.path.getsize(path)
    return made


def _write(index_path: str, text: str) -> None:
    try:
        atomic_write(index_path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise _not_writable(index_path) from error
        raise


def _not_writable(index_path: str) -> PermissionError:
    return PermissionError(
        f"the index {index_path!r} cannot be written. Make it elsewhere with "
        "`dali-cutmix index SOURCE --out DIR`, and read with find_source(…, index_dir=DIR)."
    )


# --- does it fit


def check_start(kind: Kind, path: str) -> None:
    """Refuses a file that does not begin like one of its kind."""
    if _length(path) == 0:
        raise ValueError(f"{path!r} must hold records, is empty: it was not written whole.")
    with open(path, "rb") as file:
        start = file.read(512)
    begins = _FORMATS[kind].begins
    name = compression(start, begins)
    if name is not None:
        raise ValueError(
            f"{path!r} must be uncompressed, is compressed by {name}: unpack it. DALI seeks in its "
            "shards."
        )
    if not begins(start):
        raise ValueError(f"{path!r} must be {_NAMES[kind]}, is none.")


def checked_size(
    kind: Kind, paths: Sequence[str], index_paths: Sequence[str], fields: tuple[str, str] | None
) -> int | None:
    """Returns the number of samples by the indexes; refuses one that does not fit its shard.

    None where no index, or not each one, is here. Reads some records of each shard, and none of
    remote ones. Of a tar whose `fields` are given, each sample must have an image and a label.
    """
    spots = max(3, _SPOTS // len(paths))
    sizes = [
        _check(kind, path, index_path, fields, spots)
        for path, index_path in zip(paths, index_paths, strict=False)
        if not is_remote(index_path) and os.path.exists(index_path)
    ]
    return sum(sizes) if len(sizes) == len(paths) else None


def fits(kind: Kind, path: str, index_path: str) -> bool:
    """Returns whether an index fits its shard."""
    try:
        _check(kind, path, index_path, None, _SPOTS)
    except ValueError:
        return False
    return True


def _check(
    kind: Kind, path: str, index_path: str, fields: tuple[str, str] | None, spots: int
) -> int:
    """Returns the number of samples in an index; refuses one that does not fit its shard."""
    try:
        entries = _read_index(kind, index_path)
        why = None
    except ValueError as error:
        why = str(error)
    if why is None and not is_remote(path):
        why = _misfit(kind, path, entries, spots)
    if why is not None:
        raise ValueError(
            f"the index {index_path!r} must fit {path!r}, but {why}. It is damaged, of other data, "
            "or older than these; or these were cut short. Make it anew: "
            "`dali-cutmix index SOURCE`."
        )
    if kind == "webdataset" and fields is not None:
        tars.check_components(path, index_path, entries, fields)
    return len(entries)


def difference(kind: Kind, index_path: str, other: str) -> str | None:
    """Returns how an index differs from another one of the same shard, None if it does not."""
    if not os.path.exists(index_path):
        return None
    try:
        entries = _read_index(kind, index_path)
    except (OSError, ValueError) as error:
        return str(error)
    right = _read_index(kind, other)
    if np.array_equal(entries, right) if kind != "webdataset" else entries == right:
        return None
    return f"it has {len(entries)} entries, the shard {len(right)}, and they are not the same"


def without(kind: Kind, index_path: str, numbers: Sequence[int]) -> str:
    """Returns the text of an index without some of its samples, numbered from 0 as by `samples`."""
    left_out = set(numbers)
    with open(index_path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line for line in file.read().split("\n") if line.strip()]
    head = lines[:1] if kind == "webdataset" else []
    lines = lines[len(head) :]
    if kind == "recordio":
        lines.sort(key=lambda line: int(line.split()[1]))
    kept = [line for number, line in enumerate(lines) if number not in left_out]
    if head:
        head = [f"{head[0].split()[0]} {len(kept)}"]
    return "".join(f"{line}\n" for line in [*head, *kept])


def _misfit(kind: Kind, path: str, entries: Any, spots: int) -> str | None:
    if kind == "webdataset":
        entries = [part for sample in entries for part in sample]
    # Evenly spaced, the first and the last among them.
    checked = sorted({round(i) for i in np.linspace(0, len(entries) - 1, spots)})
    total = _length(path)
    with open(path, "rb") as file:
        why: str | None = _FORMATS[kind].misfit(file, total, entries, checked)
    return why


def _length(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path!r} must exist.") from error


# --- reading one


def samples(
    kind: Kind, path: str, index_path: str, fields: tuple[str, str] | None
) -> Iterator[tuple[str, bytes, int | None]]:
    """Yields (position, encoded image, label) of each sample of a shard; None for a wrong label."""
    entries = _read_index(kind, index_path)
    with open(path, "rb") as file:
        if kind == "webdataset":
            assert fields is not None
            yield from tars.samples(file, entries, fields)
            return
        if kind == "recordio":
            entries = np.stack([entries, np.diff(entries, append=_length(path))], axis=1)
        for number, (offset, size) in enumerate(entries.tolist(), 1):
            record = os.pread(file.fileno(), size, offset)
            if kind == "recordio":
                image, label = recordio.sample(record)
            else:
                assert fields is not None
                image, label = tfrecords.sample(record, fields)
            yield f"record {number}, at byte {offset}", image, label


def _read_index(kind: Kind, index_path: str) -> Any:
    """Returns samples of a tar, (offset, size) of TFRecord, sorted offsets of RecordIO.

    ValueError says what is wrong with it.
    """
    if kind == "webdataset":
        return tars.read_index(index_path)
    table = _read_table(index_path)
    return np.sort(table[:, 1]) if kind == "recordio" else table


def _read_table(index_path: str) -> NDArray[np.int64]:
    """Returns the two integers of each line."""
    with open(index_path, "rb") as file:
        words = file.read().split()
    try:
        table = np.array(words, dtype=np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise ValueError("it does not have two integers a line") from error
    if len(table) == 0:
        raise ValueError("it has no entries")
    return table
