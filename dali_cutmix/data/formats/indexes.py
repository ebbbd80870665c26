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

from dali_cutmix.data.atomic import write_whole
from dali_cutmix.data.formats import recordio, tars, tfrecords
from dali_cutmix.data.formats.paths import (
    INDEXED,
    Kind,
    Paths,
    is_remote,
    join,
    kind_by_name,
    path_text,
    repeated,
)

Progress = Callable[[int, int], object]

__all__ = [
    "Progress",
    "check_start",
    "checked_size",
    "difference",
    "fits",
    "index_places",
    "make_all",
    "make_index",
    "own_place",
    "samples",
    "without",
]

_SPOTS = 64  # records looked at where the index is checked, over all files; at least 3 a file

_FORMATS = {"webdataset": tars, "tfrecord": tfrecords, "recordio": recordio}
_NAMES = {"webdataset": "a tar file", "tfrecord": "a TFRecord file", "recordio": "a RecordIO file"}


# --- where an index lies


def own_place(path: str, folder: str | None) -> str:
    """Returns where a new index goes: the whole name, so that x.tar and x.rec do not share one."""
    own, name = os.path.split(path)
    return join(own if folder is None else folder, name + ".idx")


def index_places(paths: Sequence[str], kind: str, folder: str | None) -> list[str]:
    """Returns where the index of each shard is, or else where it is to be made."""
    places = []
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
        places.append(next(there, candidates[0]))
    place = repeated(places)
    if place is not None:
        shared = [p for p, of in zip(paths, places, strict=True) if of == place]
        raise ValueError(
            f"the shards must have an index each, got {place!r} for {shared[0]!r} and "
            f"{shared[1]!r}: rename it to <shard>.idx, or keep the indexes of each folder apart."
        )
    return places


# --- making one


def make_index(
    path: Paths,
    index_path: Paths | None = None,
    *,
    progress: Progress | None = None,
) -> str:
    """Returns the path of the index made of one shard, by default the shard's plus ``.idx``.

    The file appears whole or not at all, also where several processes make it. `progress` is
    called with (bytes done, bytes in all).

    Raises:
        PermissionError: the folder cannot be written.
        FileNotFoundError, ValueError: the shard is missing, damaged or of no known kind.
    """
    shard: str = path_text(path)
    kind = kind_by_name(shard)
    if kind not in INDEXED:
        raise ValueError(f"`path` must be *.tar, *.rec or a TFRecord, got {shard!r}.")
    place: str = path_text(index_path, "index_path") or own_place(shard, None)
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
    _write(place, "".join(lines))
    if progress is not None:
        progress(total, total)
    return place


def make_all(wanted: list[tuple[str, str]], progress: Progress | None) -> list[str]:
    """Returns the paths of the indexes made, of (shard, index) each; `progress` is of them all."""
    total = sum(os.path.getsize(path) for path, _ in wanted)
    before = 0
    made = []
    for path, place in wanted:

        def inner(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        made.append(make_index(path, place, progress=inner))
        before += os.path.getsize(path)
    return made


def _write(place: str, text: str) -> None:
    try:
        write_whole(place, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise _no_room(place) from error
        raise


def _no_room(place: str) -> PermissionError:
    return PermissionError(
        f"the index {place!r} cannot be written. Make it elsewhere with "
        "`dali-cutmix index SOURCE --out DIR`, and read with find_source(…, index_dir=DIR)."
    )


# --- does it fit


def check_start(kind: Kind, path: str) -> None:
    """Refuses a file that does not begin like one of its kind."""
    if _length(path) == 0:
        raise ValueError(f"{path!r} must hold records, is empty: it was not written whole.")
    with open(path, "rb") as file:
        start = file.read(512)
    if not _FORMATS[kind].begins(start):
        hint = ", but compressed data" if start[:2] == b"\x1f\x8b" else ""
        raise ValueError(f"{path!r} must be {_NAMES[kind]}, is none{hint}.")


def checked_size(
    kind: Kind, paths: Sequence[str], places: Sequence[str], fields: tuple[str, str] | None
) -> int | None:
    """Returns the number of samples by the indexes; refuses one that does not fit its shard.

    None where no index, or not each one, is here. Looks at some records of each shard; of remote
    shards at none. Of a tar whose `fields` are given, each sample must have an image and a label.
    """
    spots = max(3, _SPOTS // len(paths))
    sizes = [
        _check(kind, path, place, fields, spots)
        for path, place in zip(paths, places, strict=False)
        if not is_remote(place) and os.path.exists(place)
    ]
    return sum(sizes) if len(sizes) == len(paths) else None


def fits(kind: Kind, path: str, place: str) -> bool:
    """Returns whether an index fits its shard."""
    try:
        _check(kind, path, place, None, _SPOTS)
    except ValueError:
        return False
    return True


def _check(kind: Kind, path: str, place: str, fields: tuple[str, str] | None, spots: int) -> int:
    """Returns the number of samples in an index; refuses one that does not fit its shard."""
    try:
        entries = _read_index(kind, place)
        why = None
    except ValueError as error:
        why = str(error)
    if why is None and not is_remote(path):
        why = _misfit(kind, path, entries, spots)
    if why is not None:
        raise ValueError(
            f"the index {place!r} must fit {path!r}, but {why}. It is damaged, of other data, or "
            "older than these; or these were cut short. Make it anew: `dali-cutmix index SOURCE`."
        )
    if kind == "webdataset" and fields is not None:
        tars.check_components(path, place, entries, fields)
    return len(entries)


def difference(kind: Kind, place: str, other: str) -> str | None:
    """Returns how an index differs from another one of the same shard, None if it does not."""
    if not os.path.exists(place):
        return None
    try:
        entries = _read_index(kind, place)
    except (OSError, ValueError) as error:
        return str(error)
    right = _read_index(kind, other)
    if np.array_equal(entries, right) if kind != "webdataset" else entries == right:
        return None
    return f"it has {len(entries)} entries, the shard {len(right)}, and they are not the same"


def without(kind: Kind, place: str, numbers: Sequence[int]) -> str:
    """Returns the text of an index without some of its samples, numbered from 0 as by `samples`."""
    left_out = set(numbers)
    with open(place, encoding="utf-8", errors="surrogateescape") as file:
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
    looked_at = sorted({round(i) for i in np.linspace(0, len(entries) - 1, spots)})
    total = _length(path)
    with open(path, "rb") as file:
        why: str | None = _FORMATS[kind].misfit(file, total, entries, looked_at)
    return why


def _length(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path!r} must exist.") from error


# --- reading one


def samples(
    kind: Kind, path: str, place: str, fields: tuple[str, str] | None
) -> Iterator[tuple[str, bytes, int | None]]:
    """Yields (place, encoded image, label) of each sample of a shard; None for a wrong label."""
    entries = _read_index(kind, place)
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


def _read_index(kind: Kind, place: str) -> Any:
    """Returns samples of a tar, (offset, size) of TFRecord, sorted offsets of RecordIO.

    ValueError says what is wrong with it.
    """
    if kind == "webdataset":
        return tars.read_index(place)
    table = _read_table(place)
    return np.sort(table[:, 1]) if kind == "recordio" else table


def _read_table(place: str) -> NDArray[np.int64]:
    """Returns the two integers of each line."""
    with open(place, "rb") as file:
        words = file.read().split()
    try:
        table = np.array(words, dtype=np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise ValueError("it does not have two integers a line") from error
    if len(table) == 0:
        raise ValueError("it has no entries")
    return table
