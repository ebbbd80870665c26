"""What a path names: one or several files, here or remote, and by their names which kind of data.

A pattern has ``*``, ``?``, ``[…]``, ``{0000..0127}`` or ``{a,b}``; remote shards only the last two,
as nothing is listed there. A folder is one of classes, or else the shards that it holds.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from dali_cutmix.data.folders import class_folders, is_image_name

Kind = Literal["folder", "list", "webdataset", "tfrecord", "recordio"]
Paths = str | os.PathLike[str]

__all__ = [
    "INDEXED",
    "Kind",
    "Paths",
    "first_repeated",
    "is_remote",
    "join",
    "kind_by_name",
    "named_files",
    "path_text",
]

INDEXED: tuple[Kind, ...] = ("webdataset", "tfrecord", "recordio")

_NAMES: dict[Kind, re.Pattern[str]] = {
    "webdataset": re.compile(r"\.tar$", re.I),
    "recordio": re.compile(r"\.rec$", re.I),
    "list": re.compile(r"\.(txt|lst|list|csv)$", re.I),
    "tfrecord": re.compile(r"(\.(tfrecords?|tfrec)|-\d+-of-\d+)$", re.I),
}
_EXPECTED = (
    "an ImageFolder, a list of images (*.txt, *.lst, *.list, *.csv), WebDataset shards (*.tar), "
    "TFRecords (*.tfrecord, *.tfrecords, *.tfrec, *-00000-of-00010) or RecordIO (*.rec)"
)
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_MOST_SHARDS = 1_000_000


def named_files(source: Any, kind: Kind | None) -> tuple[tuple[str, ...], Kind]:
    """Returns the folder, the list or the shards that `source` names, and their kind."""
    if isinstance(source, (list, tuple)):
        if not source:
            raise ValueError("`source` must name at least one file, got an empty sequence.")
        named = [path for one in source for path in _expanded(path_text(one))]
        if kind is None and any(os.path.isdir(path) for path in named):
            raise ValueError("`source` must be one folder, or a sequence of shards, got folders.")
    else:
        text = path_text(source)
        if not is_remote(text) and os.path.isdir(text):
            return _of_folder(os.path.abspath(text), kind)
        named = _expanded(text)
    kinds = {kind or kind_by_name(path) for path in named}
    if len(kinds) > 1:
        raise ValueError(f"`source` must be of one kind, got {', '.join(sorted(kinds))}.")
    (one_kind,) = kinds
    if len(named) > 1 and one_kind not in ("webdataset", "tfrecord"):
        what = "RecordIO file" if one_kind == "recordio" else one_kind
        raise ValueError(f"`source` must be one {what}, got {len(named)}.")
    twice = first_repeated(named)
    if twice is not None:
        raise ValueError(f"`source` must name every file once, got {twice!r} more than once.")
    return tuple(p if is_remote(p) else os.path.abspath(p) for p in named), one_kind


def kind_by_name(path: str) -> Kind:
    """Returns the kind of a file, or of a remote folder; raises where its name does not tell."""
    kind = _match(path)
    if kind is not None:
        return kind
    if re.search(r"\.(tgz|tar\.\w+|tfrecords?\.gz)$", path, re.I):
        raise ValueError(
            f"`source` must be uncompressed, got {path!r}: unpack it. DALI seeks in its shards."
        )
    if is_remote(path) and not os.path.splitext(path.rstrip("/"))[1]:
        return "folder"
    if not is_remote(path) and not os.path.exists(path):
        raise FileNotFoundError(f"`source` must exist, got {path!r}.")
    raise ValueError(
        f"`source` must be {_EXPECTED}, got {path!r}. A list with another ending is read with "
        'find_source(…, kind="list").'
    )


def is_remote(path: str) -> bool:
    """Returns whether a path is an address: s3://…, gs://… or another."""
    return _REMOTE.match(path) is not None


def join(folder: str, name: str) -> str:
    """Returns the path of a name in a folder, which may be remote."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def path_text(path: Any, name: str = "source") -> Any:
    """Returns a path as str that DALI can open, None as None; `name` is that of the argument."""
    if path is None and name != "source":
        return None
    if not isinstance(path, (str, os.PathLike)):
        rule = "a path or a sequence of paths" if name == "source" else "a path"
        raise TypeError(f"`{name}` must be {rule}, got {path!r}.")
    text = os.fsdecode(path)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` must have a name in UTF-8, got {text!r}.") from error
    return text


def first_repeated(names: Iterable[str]) -> str | None:
    """Returns the first name that comes more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _match(path: str) -> Kind | None:
    name = os.path.basename(path)
    if name.startswith("."):
        return None
    return next((kind for kind, pattern in _NAMES.items() if pattern.search(name)), None)


# --- folders


def _of_folder(root: str, kind: Kind | None) -> tuple[tuple[str, ...], Kind]:
    """Returns the folder itself, or the shards in it."""
    with os.scandir(root) as entries:
        known = [(entry.is_dir(), entry.path) for entry in entries]
    shards: dict[Kind, list[str]] = {}
    for is_folder, path in sorted(known):
        of = None if is_folder else _match(path)
        if of in INDEXED:
            shards.setdefault(of, []).append(path)
    folders = class_folders(root)
    classes = any(_holds_images(os.path.join(root, name)) for name in folders)
    if kind is None and not shards:
        kind = "folder" if folders or _holds_images(root) else None
    elif kind is None and not classes and len(shards) == 1:
        (kind,) = shards
    if kind == "folder":
        return (root,), kind
    if kind is None and not shards:
        raise FileNotFoundError(f"`source` must be {_EXPECTED}, got {root!r} with none of these.")
    if kind not in shards:
        what = ", ".join([*(["class folders"] if classes else []), *shards]) or "no shards"
        raise ValueError(
            f"`source` must hold one kind of data, got {root!r} with {what}: "
            "read with find_source(…, kind=…), or pass a pattern such as "
            f"{os.path.join(root, '*.tar')!r}."
        )
    assert kind is not None
    _check_complete(root, shards[kind])
    return tuple(shards[kind]), kind


def _holds_images(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(is_image_name(entry.name) for entry in entries)
    except PermissionError:  # lost+found, for one
        return False


def _check_complete(root: str, shards: Sequence[str]) -> None:
    """Refuses a folder, or pattern, of x-00000-of-00010 that lacks one of the ten."""
    sets: dict[tuple[str, str], set[int]] = {}
    for path in shards:
        named = re.search(r"^(.*?)-(\d+)-of-(\d+)", os.path.basename(path))
        if named:
            sets.setdefault((named[1], named[3]), set()).add(int(named[2]))
    for (stem, total), numbers in sets.items():
        gaps = sorted(set(range(int(total))) - numbers)
        if gaps:
            name = f"{stem}-{gaps[0]:0{len(total)}d}-of-{total}"
            raise FileNotFoundError(
                f"{root!r} must hold all {int(total)} shards {stem}-*-of-{total}, got "
                f"{len(numbers)}: {name!r} is missing. For a part of them pass their paths."
            )


# --- patterns


def _expanded(pattern: str) -> list[str]:
    """Returns the paths that a pattern stands for; all of them exist, where they are local."""
    if is_remote(pattern):
        scheme = pattern.partition("://")[0]
        if scheme not in ("s3", "gs"):
            raise ValueError(f"`source` must be local, s3:// or gs://, got {pattern!r}.")
        if re.search(r"[*?\[]", pattern):
            raise ValueError(
                f"`source` must name its remote shards, got {pattern!r}: {{0000..0127}} does."
            )
        return _braces(pattern)
    if os.path.exists(pattern):
        return [pattern]
    paths: list[str] = []
    for one in _braces(pattern):
        found = sorted(glob.glob(one)) if glob.has_magic(one) else [one]
        if not found or not os.path.exists(found[0]):
            raise FileNotFoundError(
                f"`source` must name files that exist, got {one!r}"
                + (f" of {pattern!r}." if one != pattern else ".")
            )
        paths += found
    if "*-of-" in pattern:  # all of them are meant
        _check_complete(pattern, paths)
    return paths


def _braces(pattern: str) -> list[str]:
    """Returns what {0000..0127} and {a,b} stand for, as in a shell."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    before, inner, after = pattern[: found.start()], found[1], pattern[found.end() :]
    numbers = re.fullmatch(r"([0-9]+)\.\.([0-9]+)", inner)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        if not first <= last < first + _MOST_SHARDS:
            raise ValueError(f"`source` must have a rising range in {{…}}, got {pattern!r}.")
        padded = any(len(n) > 1 and n[0] == "0" for n in numbers.groups())
        width = max(map(len, numbers.groups())) if padded else 0
        items = [f"{i:0{width}d}" for i in range(first, last + 1)]
    elif "," in inner:
        items = inner.split(",")
    else:
        raise ValueError(
            f"`source` must have {{first..last}} or {{a,b}} in {{…}}, got {pattern!r}."
        )
    return [before + item + rest for rest in _braces(after) for item in items]
