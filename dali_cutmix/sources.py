"""Where images and labels come from: which kind of data set it is, whether it is whole, its index.

    folder      ImageFolder: one folder a class
    list        text file: one "path label" a line
    webdataset  tar files, a sample being files of one name: 0001.jpg, 0001.cls
    tfrecord    TFRecord files of tf.train.Example
    recordio    one RecordIO file of MXNet's im2rec

The last three are read by an index, a small text file that says where each record lies. It has
the format of DALI's wds2idx, tfrecord2idx and rec2idx, whose files are taken as they are.
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import hashlib
import io
import os
import re
import secrets
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dali_cutmix.config import checked_choice, checked_int
from dali_cutmix.folders import IMAGE_PATTERNS, class_names, image_files, unreadable_files

Kind = Literal["folder", "list", "webdataset", "tfrecord", "recordio"]
Paths = str | os.PathLike[str]
Progress = Callable[[int, int], object]

__all__ = ["Source", "damaged", "find_source", "index", "make_index", "missing_indexes"]

_INDEXED = ("webdataset", "tfrecord", "recordio")
_NAMES: dict[str, re.Pattern[str]] = {
    "webdataset": re.compile(r"\.tar$", re.I),
    "recordio": re.compile(r"\.rec$", re.I),
    "list": re.compile(r"\.(txt|lst|list)$", re.I),
    "tfrecord": re.compile(r"(\.(tfrecords?|tfrec)|-\d+-of-\d+)$", re.I),
}
_LOOKED_FOR = (
    "an ImageFolder, a list of images (*.txt, *.lst, *.list), WebDataset shards (*.tar), TFRecords "
    "(*.tfrecord, *.tfrecords, *.tfrec, *-00000-of-00010) or RecordIO (*.rec)"
)
_IMAGE_EXTENSIONS = ";".join(pattern[2:] for pattern in IMAGE_PATTERNS)
_EXAMPLES = (("image/encoded", "image/class/label"), ("image", "label"))  # tf-slim's, TFDS's
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_MOST_SHARDS = 1_000_000
_SPOTS = 64  # records looked at where the index is checked, over all files; at least 3 a file
_BLOCK = 512  # of a tar
_MAGIC = 0xCED7230A  # of a RecordIO record


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set that was found; made by `find_source`.

    Attributes:
        kind: ``"folder"``, ``"list"``, ``"webdataset"``, ``"tfrecord"`` or ``"recordio"``.
        paths: the folder, the list, or the shards.
        index_paths: the index of each shard; empty where none is needed.
        file_root, files, labels: of a list: paths within the root, labels with the offset added.
        fields: names of the image and the label in a sample: extensions (``"jpg;png"``) of
            WebDataset, features of TFRecord.
        classes: names of the classes, of a folder.
        num_classes: of a folder, and of a list the highest label plus 1; else None.
        size: number of samples where it is known (not of a folder).
        label_offset: what is added to each label.
    """

    kind: Kind
    paths: tuple[str, ...]
    index_paths: tuple[str, ...] = ()
    file_root: str | None = None
    files: tuple[str, ...] = field(default=(), repr=False)
    labels: tuple[int, ...] = field(default=(), repr=False)
    fields: tuple[str, str] | None = None
    classes: tuple[str, ...] | None = field(default=None, repr=False)
    num_classes: int | None = None
    size: int | None = None
    label_offset: int = 0

    @property
    def remote(self) -> bool:
        return _is_remote(self.paths[0])

    @property
    def identity(self) -> str:
        """Short text that is equal for the same samples in the same order, wherever they lie.

        Of shards it has their names, not their contents.
        """
        shards = self.paths if self.kind in _INDEXED else ()
        names = [os.path.basename(path) for path in shards]
        facts = (
            names,
            self.files,
            self.labels,
            self.classes,
            self.fields,
            self.size,
            self.label_offset,
        )
        return f"{self.kind} {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def find_source(
    source: Paths | Sequence[Paths],
    *,
    kind: Kind | None = None,
    file_root: Paths | None = None,
    index_dir: Paths | None = None,
    fields: tuple[str, str] | None = None,
    label_offset: int = 0,
    make_indexes: bool = False,
    progress: Progress | None = None,
) -> Source:
    """Returns what kind of data set `source` is, with its files found and checked.

    Args:
        source: a folder of classes; a folder that holds shards; a list; a shard; a pattern of
            shards with ``*``, ``?``, ``[…]``, ``{0000..0127}`` or ``{a,b}``; or a sequence of
            shards and patterns. Shards and a folder of classes may be at s3:// or gs://.
        kind: for a folder that holds both classes and shards.
        file_root: what the paths of a list are relative to, and what they must lie in; by default
            the folder of the list. May be s3:// or gs://.
        index_dir: where the indexes are, or are to be made; by default beside the shards.
        fields: (image, label), where they are not found by their usual names: extensions of
            WebDataset (several, separated by ``;``), or features of TFRecord.
        label_offset: added to each label: -1 for labels that begin at 1, as those of TFRecords
            made by tf-slim's scripts do.
        make_indexes: make the indexes that are missing; several processes may do so at once.
        progress: called with (bytes done, bytes in all) while indexes are made.

    A list has one "path label" a line, UTF-8; empty lines are ignored. Paths may hold blanks, but
    not at their ends. The usual fields are the image extensions and ``cls``, decimal text, of
    WebDataset, and ``image/encoded`` and ``image/class/label``, or ``image`` and ``label``, of
    TFRecord. One RecordIO file is read, not several: DALI takes a single index.

    What is checked: that all files exist; that TFRecords listed without a gap end where the file
    ends; that the last record of RecordIO, or of a tar and the zero block after it, ends there;
    that each sample of a tar has an image and a label; and the headers of a few dozen records. An
    index of other data of the same length is thereby found, unless all these headers agree. Not
    detected: a changed byte within a record, and single entries missing from RecordIO's index.
    Remote files are not looked at.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the kind cannot be told, or a file is damaged or does not fit its index.
        TypeError: an argument has the wrong type.

    >>> find_source(photo_folder).kind
    'folder'
    """
    label_offset = checked_int("label_offset", label_offset, -(2**31))
    if kind is not None:
        checked_choice("kind", kind, get_args(Kind))
    paths, kind = _paths_of(source, kind)
    found = Source(kind=kind, paths=paths, label_offset=label_offset)
    if kind not in _INDEXED:
        for name, value in (("fields", fields), ("index_dir", index_dir)):
            if value is not None:
                raise ValueError(f"`{name}` must be left out for a {kind}, got {value!r}.")
    if kind != "list" and file_root is not None:
        raise ValueError(f"`file_root` must be left out but for a list, got {file_root!r}.")
    if kind == "folder":
        return _folder(found)
    if kind == "list":
        return _list(found, file_root)
    return _shards(found, _text(index_dir), fields, make_indexes, progress)


def missing_indexes(source: Source) -> list[tuple[str, str]]:
    """Returns (shard, index to be made) for each shard whose index does not exist."""
    pairs = zip(source.paths, source.index_paths, strict=False)
    return [(p, i) for p, i in pairs if not _is_remote(i) and not os.path.exists(i)]


def index(
    source: Paths | Sequence[Paths],
    out: Paths | None = None,
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Returns the paths of the index files made, for the shards that `source` names.

    Indexes that exist and fit are left alone. One that does not fit is left too, and the new one
    is made under the name of the shard plus ``.idx``, which goes before; of that name, it is
    replaced. `out` is the folder for the indexes, made where it is missing, by default that of
    the shards; pass it to `find_source` as `index_dir`.

    Raises:
        PermissionError: the folder cannot be written.
        FileNotFoundError, ValueError: as for `find_source`, and for a damaged shard.
    """
    paths, kind = _paths_of(source, None)
    if kind not in _INDEXED:
        return []
    if _is_remote(paths[0]):
        raise ValueError(f"`source` must be on this machine to be indexed, got {paths[0]!r}.")
    if out is not None:
        os.makedirs(out, exist_ok=True)
    wanted = []
    for path, place in zip(paths, _index_places(paths, kind, _text(out)), strict=True):
        if not (os.path.exists(place) and _fits(kind, path, place)):
            wanted.append((path, _own_place(path, _text(out))))
    return _make_all(wanted, progress)


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
    shard: str = _text(path)
    kind = _kind_by_name(shard)
    if kind not in _INDEXED:
        raise ValueError(f"`path` must be *.tar, *.rec or a TFRecord, got {shard!r}.")
    place: str = _own_place(shard, None) if index_path is None else _text(index_path)
    _check_start(kind, shard)
    total = _length(shard)
    lines: list[str] = []
    with open(shard, "rb") as file:
        for done, line in _SCANS[kind](shard, file, total):
            if progress is not None and len(lines) % 1000 == 0:
                progress(done, total)
            lines.append(line)
    if not lines:
        raise ValueError(f"{shard!r} must hold at least one record, got none.")
    if kind == "webdataset":
        lines.insert(0, f"v1.2 {len(lines)}\n")
    _write_whole(place, "".join(lines))
    if progress is not None:
        progress(total, total)
    return place


def damaged(source: Source, limit: int = 5) -> list[str]:
    """Returns the first samples whose image or label cannot be read, each as file and place in it.

    Looks at every sample until `limit` are found; at remote ones it does not. For saying which
    file it was after DALI failed.
    """
    if source.kind in ("folder", "list"):
        if source.remote or _is_remote(source.file_root or ""):
            return []
        files: Iterable[str] = image_files(source.paths[0])
        if source.kind == "list":
            files = [os.path.join(source.file_root or "", name) for name in source.files]
        return unreadable_files(files)[:limit]
    found: list[str] = []
    if source.remote or missing_indexes(source):
        return found
    for path, place in zip(source.paths, source.index_paths, strict=True):
        for where, image, label in _samples(source, path, place):
            stream: Any = io.BytesIO(image)
            if label is None or label + source.label_offset < 0:
                found.append(f"{path} ({where}: label)")
            elif unreadable_files([stream]):
                found.append(f"{path} ({where}: image)")
            if len(found) == limit:
                return found
    return found


# --- which kind, which files


def _paths_of(source: Any, kind: Kind | None) -> tuple[tuple[str, ...], Kind]:
    """Returns the folder, the list or the shards that `source` names, and their kind."""
    if isinstance(source, (list, tuple)):
        if not source:
            raise ValueError("`source` must name at least one file, got an empty sequence.")
        named = [path for one in source for path in _expanded(_text(one))]
        if kind is None and any(os.path.isdir(path) for path in named):
            raise ValueError("`source` must be one folder, or a sequence of shards, got folders.")
    else:
        text = _text(source)
        if not _is_remote(text) and os.path.isdir(text):
            return _of_folder(text, kind)
        named = _expanded(text)
    kinds = {kind or _kind_by_name(path) for path in named}
    if len(kinds) > 1:
        raise ValueError(f"`source` must be of one kind, got {', '.join(sorted(kinds))}.")
    (one_kind,) = kinds
    if len(named) > 1 and one_kind not in ("webdataset", "tfrecord"):
        what = "RecordIO file" if one_kind == "recordio" else one_kind
        raise ValueError(f"`source` must be one {what}, got {len(named)}.")
    twice = sorted({path for path in named if named.count(path) > 1}) if _repeats(named) else []
    if twice:
        raise ValueError(f"`source` must name every file once, got {twice[0]!r} more than once.")
    return tuple(named), one_kind


def _repeats(paths: Sequence[str]) -> bool:
    return len(set(paths)) < len(paths)


def _of_folder(root: str, kind: Kind | None) -> tuple[tuple[str, ...], Kind]:
    """Returns the folder itself, or the shards in it."""
    with os.scandir(root) as entries:
        known = [(entry.is_dir(), entry.path) for entry in entries]
    shards: dict[Kind, list[str]] = {}
    for is_folder, path in sorted(known):
        of = None if is_folder else _match(path)
        if of in _INDEXED and of is not None:
            shards.setdefault(of, []).append(path)
    classes = any(is_folder and _holds_images(path) for is_folder, path in known)
    if kind is None and not shards:
        kind = "folder" if any(is_folder for is_folder, _ in known) else None
    elif kind is None and not classes and len(shards) == 1:
        (kind,) = shards
    if kind == "folder":
        return (root,), kind
    if kind is None and not shards:
        raise FileNotFoundError(f"`source` must be {_LOOKED_FOR}, got {root!r} with none of these.")
    if kind not in shards:
        what = ", ".join([*(["class folders"] if classes else []), *shards]) or "no shards"
        raise ValueError(
            f"`source` must hold one kind of data, got {root!r} with {what}: "
            f"pass `kind`, or a pattern such as {os.path.join(root, '*.tar')!r}."
        )
    assert kind is not None
    _check_complete(root, shards[kind])
    return tuple(shards[kind]), kind


def _holds_images(folder: str) -> bool:
    extensions = tuple(pattern[1:] for pattern in IMAGE_PATTERNS)
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.lower().endswith(extensions) for entry in entries)
    except PermissionError:  # lost+found, for one
        return False


def _check_complete(root: str, shards: Sequence[str]) -> None:
    """Refuses a folder with x-00000-of-00010 that lacks one of the ten."""
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
                f"{len(numbers)}: {name!r} is missing. For a part of them pass a pattern."
            )


def _match(path: str) -> Kind | None:
    name = os.path.basename(path)
    if not name.startswith("."):
        for kind, pattern in _NAMES.items():
            if pattern.search(name):
                return kind  # type: ignore[return-value]
    return None


def _kind_by_name(path: str) -> Kind:
    kind = _match(path)
    if kind is not None:
        return kind
    if re.search(r"\.(tgz|tar\.\w+|tfrecords?\.gz)$", path, re.I):
        raise ValueError(f"`source` must be uncompressed, got {path!r}: DALI seeks in its shards.")
    if _is_remote(path) and not os.path.splitext(path.rstrip("/"))[1]:
        return "folder"
    if not _is_remote(path) and not os.path.exists(path):
        raise FileNotFoundError(f"`source` must exist, got {path!r}.")
    raise ValueError(f"`source` must be {_LOOKED_FOR}, got {path!r}.")


def _expanded(pattern: str) -> list[str]:
    """Returns the paths that a pattern stands for; all of them exist, where they are local."""
    if _is_remote(pattern):
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


def _is_remote(path: str) -> bool:
    return _REMOTE.match(path) is not None


def _text(path: Any) -> Any:
    """Returns a path as str that DALI can open, None as None."""
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`source` must be a path or a sequence of paths, got {path!r}.")
    text = os.fsdecode(path)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`source` must have a name in UTF-8, got {text!r}.") from error
    return text


# --- folders and lists


def _folder(found: Source) -> Source:
    if found.label_offset:
        raise ValueError(
            f"`label_offset` must be 0 for a folder of classes, got {found.label_offset}."
        )
    if found.remote:
        return found
    names = tuple(class_names(found.paths[0]))
    return dataclasses.replace(found, classes=names, num_classes=len(names))


def _list(found: Source, file_root: Any) -> Source:
    path = found.paths[0]
    if found.remote:
        raise ValueError(
            f"`source` must be a list on this machine, got {path!r}: copy it here, "
            "and pass `file_root` for its remote images."
        )
    root = os.path.dirname(path) if file_root is None else _text(file_root)
    root = root if _is_remote(root) else os.path.abspath(root)
    files: dict[str, int] = {}
    labels = []
    for number, line in _lines(path):
        file, label = _entry(path, number, line, root)
        if file in files:
            raise ValueError(
                f"{path!r} must name every image once, got {file!r} in lines "
                f"{files[file]} and {number}."
            )
        label += found.label_offset
        if not 0 <= label < 2**31:
            raise ValueError(
                f"{path!r}, line {number}: the label with `label_offset` must be at least 0, "
                f"got {label}."
            )
        files[file] = number
        labels.append(label)
    if not files:
        raise ValueError(f'{path!r} must hold at least one line "path label", got none.')
    if not _is_remote(root):
        _check_exist(path, root, files)
    return dataclasses.replace(
        found,
        file_root=root,
        files=tuple(files),
        labels=tuple(labels),
        num_classes=max(labels) + 1,
        size=len(labels),
    )


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
        base = "/\N{REPLACEMENT CHARACTER}/" if _is_remote(root) else root.rstrip("/") + "/"
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


# --- shards and their indexes


def _shards(
    found: Source,
    index_dir: str | None,
    fields: Any,
    make_indexes: bool,
    progress: Progress | None,
) -> Source:
    kind, paths = found.kind, found.paths
    if fields is not None and (kind == "recordio" or not _two_names(fields)):
        rule = "left out for RecordIO" if kind == "recordio" else "two names, (image, label)"
        raise ValueError(f"`fields` must be {rule}, got {fields!r}.")
    if found.remote:
        if index_dir is None and kind != "webdataset":
            raise ValueError(
                f"`index_dir` must be given for {kind} at {paths[0]!r}: the folder, or address, "
                "with an index <name of the shard>.idx a shard."
            )
        if fields is None and kind == "tfrecord":
            raise ValueError(
                f"`fields` must be given for TFRecords at {paths[0]!r}: the features with image "
                f"and label, for example {_EXAMPLES[0]!r}."
            )
    else:
        for path in paths:
            _check_start(kind, path)
    if kind == "webdataset":
        fields = fields or (_IMAGE_EXTENSIONS, "cls")
    elif kind == "tfrecord":
        fields = _features(paths[0], fields) if not found.remote else tuple(fields)
    places = () if found.remote and index_dir is None else _index_places(paths, kind, index_dir)
    found = dataclasses.replace(found, index_paths=tuple(places), fields=fields and tuple(fields))
    missing = missing_indexes(found)
    if missing and found.remote:
        raise FileNotFoundError(f"the index {missing[0][1]!r} of {missing[0][0]!r} must exist.")
    if missing and make_indexes:
        if index_dir is not None:
            os.makedirs(index_dir, exist_ok=True)
        _make_all(missing, progress)
        missing = []
    spots = max(3, _SPOTS // len(paths))
    size = 0
    for path, place in zip(paths, places, strict=False):
        if not _is_remote(place) and os.path.exists(place):
            size += _check_index(kind, path, place, found.fields, spots)
    known = places and not missing and not _is_remote(places[0])
    return dataclasses.replace(found, size=size if known else None)


def _two_names(fields: Any) -> bool:
    return (
        isinstance(fields, (tuple, list))
        and len(fields) == 2
        and all(isinstance(name, str) and name for name in fields)
    )


def _own_place(path: str, folder: str | None) -> str:
    """Returns where a new index goes: the whole name, so that x.tar and x.rec do not share one."""
    own, name = os.path.split(path)
    return _join(own if folder is None else folder, name + ".idx")


def _index_places(paths: Sequence[str], kind: str, folder: str | None) -> list[str]:
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
        candidates = [_join(where, n) for n in names]
        there = (c for c in candidates if not _is_remote(c) and os.path.isfile(c))
        places.append(next(there, candidates[0]))
    if _repeats(places):
        place = next(p for p in places if places.count(p) > 1)
        shared = [p for p, of in zip(paths, places, strict=True) if of == place]
        raise ValueError(
            f"the shards must have an index each, got {place!r} for {shared[0]!r} and "
            f"{shared[1]!r}: rename it to <shard>.idx, or keep the indexes of each folder apart."
        )
    return places


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if _is_remote(folder) else os.path.join(folder, name)


def _make_all(wanted: list[tuple[str, str]], progress: Progress | None) -> list[str]:
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


def _write_whole(place: str, text: str) -> None:
    """Writes a file that appears at once, whole."""
    part = f"{place}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        with open(part, "x", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write(text)
        os.replace(part, place)
    except PermissionError as error:
        raise _no_room(place) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise _no_room(place) from error
        raise
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _no_room(place: str) -> PermissionError:
    return PermissionError(
        f"the index {place!r} cannot be written. Make it elsewhere with "
        "`dali-cutmix index SOURCE --out DIR`, and pass `index_dir=DIR`."
    )


def _length(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path!r} must exist.") from error


def _check_start(kind: str, path: str) -> None:
    """Refuses a file that does not begin like one of its kind."""
    size = _length(path)
    if size == 0:
        raise ValueError(f"{path!r} must hold records, is empty: it was not written whole.")
    with open(path, "rb") as file:
        start = file.read(_BLOCK)
    if kind == "webdataset":
        good = _header(start) is not None
    elif kind == "recordio":
        good = len(start) >= 8 and struct.unpack_from("<I", start)[0] == _MAGIC
    else:
        good = len(start) >= 12 and struct.unpack_from("<Q", start)[0] < 2**40
    if not good:
        hint = ", but compressed data" if start[:2] == b"\x1f\x8b" else ""
        raise ValueError(f"{path!r} must be {_WHAT[kind]}, is none{hint}.")


_WHAT = {"webdataset": "a tar file", "tfrecord": "a TFRecord file", "recordio": "a RecordIO file"}


def _fits(kind: str, path: str, place: str) -> bool:
    try:
        _check_index(kind, path, place, None, _SPOTS)
    except ValueError:
        return False
    return True


def _check_index(
    kind: str, path: str, place: str, fields: tuple[str, str] | None, spots: int
) -> int:
    """Returns the number of samples in an index; refuses one that does not fit its shard."""
    why: str | None
    try:
        if kind == "webdataset":
            samples = _read_tar_index(place)
            why = None if _is_remote(path) else _misfit_of_tar(path, samples, spots)
            if why is None and fields is not None:
                _check_components(path, place, samples, fields)
            count = len(samples)
        else:
            table = _read_table(place)
            if kind == "recordio":
                table = np.sort(table[:, 1])
            count = len(table)
            misfit = _misfit_of_tfrecord if kind == "tfrecord" else _misfit_of_recordio
            why = None if _is_remote(path) else misfit(path, table, spots)
    except _Malformed as error:
        why = str(error)
    if why is not None:
        raise ValueError(
            f"the index {place!r} must fit {path!r}, but {why}. It is damaged, of other data, or "
            "older than these; or these were cut short. Make it anew: `dali-cutmix index SOURCE`."
        )
    return count


class _Malformed(Exception):
    """An index file that is none."""


def _read_table(place: str) -> NDArray[np.int64]:
    """Returns the two integers of each line."""
    with open(place, "rb") as file:
        words = file.read().split()
    try:
        table = np.array(words, dtype=np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise _Malformed("it does not have two integers a line") from error
    if len(table) == 0:
        raise _Malformed("it has no entries")
    return table


def _some(count: int, spots: int) -> list[int]:
    """Returns evenly spaced positions, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, spots)})


def _misfit_of_tfrecord(path: str, table: NDArray[np.int64], spots: int) -> str | None:
    size = _length(path)
    offsets, sizes = table[:, 0], table[:, 1]
    ends = offsets + sizes
    if offsets[0] != 0 or (offsets[1:] != ends[:-1]).any():
        return "its records do not follow each other"
    if ends[-1] != size:
        return f"its records end at byte {ends[-1]} of {size}"
    with open(path, "rb") as file:
        for i in _some(len(table), spots):
            head = os.pread(file.fileno(), 8, int(offsets[i]))
            if struct.unpack("<Q", head)[0] + 16 != sizes[i]:
                return f"at byte {offsets[i]} there is no record of {sizes[i]} bytes"
    return None


def _misfit_of_recordio(path: str, offsets: NDArray[np.int64], spots: int) -> str | None:
    size = _length(path)
    ends = np.append(offsets[1:], size)
    if offsets[0] != 0 or (offsets >= ends).any():
        return "its records do not begin at byte 0, rise, and lie in the file"
    with open(path, "rb") as file:
        for i in _some(len(offsets), spots):
            try:
                end = _record_end(file, int(offsets[i]), size)
            except ValueError:
                end = -1
            if end != ends[i]:
                return f"at byte {offsets[i]} there is no record that ends at byte {ends[i]}"
    return None


def _record_end(file: BinaryIO, at: int, size: int) -> int:
    """Returns where the RecordIO record at a byte ends; it may have several parts."""
    first = True
    while True:
        head = os.pread(file.fileno(), 8, at)
        magic, word = struct.unpack("<II", head.ljust(8, b"\0"))
        flag, length = word >> 29, word & (1 << 29) - 1
        end: int = at + 8 + (length + 3 & ~3)
        if magic != _MAGIC or end > size or (flag in (0, 1)) != first or flag > 3:
            raise ValueError(at)
        if flag in (0, 3):
            return end
        first, at = False, end


# A sample of a tar: (extension, offset, size) of each component.
_Sample = list[tuple[str, int, int]]


def _read_tar_index(place: str) -> list[_Sample]:
    with open(place, encoding="utf-8", errors="surrogateescape") as file:
        head, *lines = file.read().split("\n")
    version = re.fullmatch(r"(v1\.[12]) ([0-9]+)", head)
    if version is None:
        raise _Malformed("it does not begin with v1.1 or v1.2 and a number")
    lines = [line for line in lines if line]
    if len(lines) != int(version[2]) or not lines:
        raise _Malformed(f"it announces {version[2]} samples and has {len(lines)}")
    step = 4 if version[1] == "v1.2" else 3
    samples = []
    for line in lines:
        words = line.split()
        try:
            if len(words) % step:
                raise ValueError(line)
            parts = zip(words[::step], words[1::step], words[2::step], strict=True)
            samples.append([(ext, int(offset), int(size)) for ext, offset, size in parts])
        except ValueError as error:
            raise _Malformed(f"it has a line {line[:80]!r}") from error
    return samples


def _misfit_of_tar(path: str, samples: list[_Sample], spots: int) -> str | None:
    total = _length(path)
    parts = [part for sample in samples for part in sample]
    offsets = np.array([offset for _, offset, _ in parts], np.int64)
    sizes = np.array([size for _, _, size in parts], np.int64)
    ends = offsets + (sizes + _BLOCK - 1) // _BLOCK * _BLOCK
    if (offsets % _BLOCK).any() or (offsets[1:] < ends[:-1] + _BLOCK).any() or offsets[0] < _BLOCK:
        return "its files do not follow each other in blocks of 512 bytes"
    if ends[-1] > total:
        return f"its files end at byte {ends[-1]} of {total}"
    with open(path, "rb") as file:
        for i in _some(len(parts), spots):
            head = _header(os.pread(file.fileno(), _BLOCK, int(offsets[i]) - _BLOCK))
            # The name and size of a file with a long name stand elsewhere.
            if head is None or not head.isreg() or head.size not in (sizes[i], 0):
                return f"at byte {offsets[i]} there is no file of {sizes[i]} bytes"
            extension = parts[i][0]
            plain = re.fullmatch(r"[\w.-]+", extension, re.ASCII) and len(head.name) < 90
            if plain and not head.name.endswith(extension):
                return f"at byte {offsets[i]} there is {head.name!r}, no .{extension}"
        at = int(ends[-1])
        while True:  # folders, links and hidden files may follow
            block = os.pread(file.fileno(), _BLOCK, at)
            if len(block) == _BLOCK and not any(block):
                return None
            head = _header(block)
            if head is None:
                return f"at byte {at} of {total} the tar is cut short or damaged"
            if head.isreg() and _sample_name(head.name)[0]:
                return f"at byte {at} the tar goes on with {head.name!r}"
            at += _BLOCK + (0 if head.islnk() else head.size + _BLOCK - 1) // _BLOCK * _BLOCK


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _check_components(
    path: str, place: str, samples: list[_Sample], fields: tuple[str, str]
) -> None:
    """Refuses samples without an image or a label, or with two."""
    wanted = [set(names.lower().split(";")) for names in fields]
    for number, sample in enumerate(samples, 1):
        have = [part[0].lower() for part in sample]
        for names, what in zip(wanted, fields, strict=True):
            count = sum(ext in names for ext in have)
            if count != 1:
                what = "image" if what == _IMAGE_EXTENSIONS else f".{what}"
                raise ValueError(
                    f"{path!r} must have one {what} a sample, got {count} in sample {number} with "
                    f"{', '.join('.' + ext for ext in have)} ({place!r}, line {number + 1}). "
                    "`fields` names the extensions of image and label."
                )


# --- reading shards: what an index is made from


def _scan_tar(path: str, file: BinaryIO, total: int) -> Iterator[tuple[int, str]]:
    """Yields (bytes done, line of the index) for each sample."""
    sample, end = None, 0
    parts: list[str] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would grow
                end = member.offset_data
                if not member.isreg():
                    continue
                if member.issparse():
                    raise ValueError(f"{path!r} must hold whole files, got sparse {member.name!r}.")
                end += -(-member.size // _BLOCK) * _BLOCK
                name, extension = _sample_name(member.name)
                if not name:
                    continue
                if name != sample and parts:
                    yield member.offset, " ".join(parts) + "\n"
                    parts = []
                sample = name
                # The index is separated by blanks; DALI uses the name for messages only.
                words = (extension, member.offset_data, member.size, member.name)
                parts.append(" ".join(re.sub(r"\s", "%20", str(word)) for word in words))
    except tarfile.ReadError as error:
        raise ValueError(f"{path!r} must be a whole tar file: {error}.") from error
    block = os.pread(file.fileno(), _BLOCK, end)
    if len(block) < _BLOCK or any(block):
        raise ValueError(
            f"{path!r} must end with a block of zeros, got none at byte {end} of {total}: "
            "cut short or damaged."
        )
    if parts:
        yield total, " ".join(parts) + "\n"


def _sample_name(name: str) -> tuple[str, str]:
    """Returns the name of the sample, "" for hidden files, and the extension of a file in a tar."""
    folder, _, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not dot:
        return name, name  # as DALI has it
    return (f"{folder}/{stem}" if folder else stem) if stem else "", extension


def _scan_tfrecord(path: str, file: BinaryIO, total: int) -> Iterator[tuple[int, str]]:
    at = 0
    while at < total:
        head = os.pread(file.fileno(), 12, at)
        size = 16 + struct.unpack_from("<Q", head)[0] if len(head) == 12 else total
        if at + size > total:
            raise ValueError(
                f"{path!r} must be a whole TFRecord file, but the record at byte {at} does not "
                f"end within its {total} bytes: cut short or damaged."
            )
        yield at, f"{at} {size}\n"
        at += size


def _scan_recordio(path: str, file: BinaryIO, total: int) -> Iterator[tuple[int, str]]:
    at = count = 0
    while at < total:
        try:
            end = _record_end(file, at, total)
        except ValueError as error:
            raise ValueError(
                f"{path!r} must be a whole RecordIO file, but at byte {error} of {total} there is "
                "no whole record: cut short or damaged."
            ) from None
        yield at, f"{count}\t{at}\n"
        at, count = end, count + 1


_SCANS: dict[str, Callable[[str, BinaryIO, int], Iterator[tuple[int, str]]]] = {
    "webdataset": _scan_tar,
    "tfrecord": _scan_tfrecord,
    "recordio": _scan_recordio,
}


# --- what is in a record


def _features(path: str, fields: Any) -> tuple[str, str]:
    """Returns the names of image and label, by what the first record has."""
    have = _kinds_of_features(path)
    for image, label in [tuple(fields)] if fields else _EXAMPLES:
        if have.get(image) == "bytes" and have.get(label) == "int64":
            return image, label
    listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(have.items())) or "none"
    wanted = f"{fields!r}" if fields else " or ".join(map(repr, _EXAMPLES))
    raise ValueError(
        f"{path!r} must have features {wanted}, an image in bytes and a label in int64, got "
        f"{listed}. `fields` names them."
    )


def _kinds_of_features(path: str) -> dict[str, str]:
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", os.pread(file.fileno(), 8, 0))
        record = os.pread(file.fileno(), min(size, _length(path)), 12)
    try:
        return {
            name: {1: "bytes", 2: "float", 3: "int64"}.get(kind, "nothing")
            for name, (kind, _) in _example(record).items()
        }
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path!r} must hold tf.train.Example records, got another.") from error


def _example(record: bytes) -> dict[str, tuple[int, bytes]]:
    """Returns the kind and the first value of each feature of a serialised tf.train.Example.

    Example: features in field 1; these: map entries in field 1, of a name in field 1 and a
    feature in field 2; this: a list of bytes, floats or integers in field 1, 2 or 3.
    """
    features = {}
    for _, entries in _messages(record, 1):
        for _, entry in _messages(entries, 1):
            parts = dict(_messages(entry))
            kind, values = next(_messages(parts.get(2, b"")), (0, b""))
            value = next(_messages(values, 1), (0, b""))[1] if kind == 1 else values
            features[parts[1].decode()] = (kind, value)
    return features


def _messages(message: bytes, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields (number, content) of the length-delimited fields of a protobuf message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire = divmod(varint(), 8)
        if wire != 2:
            raise ValueError(f"wire type {wire}")
        length = varint()
        if at + length > len(message):
            raise ValueError("cut short")
        if only in (None, number):
            yield number, message[at : at + length]
        at += length


def _samples(source: Source, path: str, place: str) -> Iterator[tuple[str, bytes, int | None]]:
    """Yields (place, encoded image, label) of each sample of a shard; None for a wrong label."""
    with open(path, "rb") as file:
        if source.kind == "webdataset":
            yield from _samples_of_tar(source, file, _read_tar_index(place))
            return
        table = _read_table(place)
        if source.kind == "recordio":
            offsets = np.sort(table[:, 1])
            table = np.stack([offsets, np.diff(offsets, append=_length(path))], axis=1)
        for number, (offset, size) in enumerate(table.tolist(), 1):
            record = os.pread(file.fileno(), size, offset)
            image, label = _of_record(source, record)
            yield f"record {number}, at byte {offset}", image, label


def _samples_of_tar(
    source: Source, file: BinaryIO, samples: list[_Sample]
) -> Iterator[tuple[str, bytes, int | None]]:
    assert source.fields is not None
    images, labels = (set(names.lower().split(";")) for names in source.fields)
    for sample in samples:
        name, image, text = "", b"", b""
        for extension, offset, size in sample:
            if extension.lower() in images:
                head = _header(os.pread(file.fileno(), _BLOCK, offset - _BLOCK))
                name = head.name if head else f"at byte {offset}"
                image = os.pread(file.fileno(), size, offset)
            elif extension.lower() in labels:
                text = os.pread(file.fileno(), size, offset)
        good = len(text) <= 10 and re.fullmatch(rb"[0-9]+[\t\n\r ]*", text)
        yield name, image, int(text) if good else None


def _of_record(source: Source, record: bytes) -> tuple[bytes, int | None]:
    """Returns the encoded image and the label of a record of TFRecord or RecordIO."""
    if source.kind == "tfrecord":
        assert source.fields is not None
        try:
            features = _example(record[12:-4])
        except (IndexError, KeyError, ValueError):
            return b"", None
        image, label = (features.get(name, (0, b"")) for name in source.fields)
        return image[1], _first_integer(label[1]) if label[0] == 3 else None
    flag, value = struct.unpack_from("<If", record, 8)
    length = struct.unpack_from("<I", record, 4)[0] & (1 << 29) - 1
    if flag == 1:
        (value,) = struct.unpack_from("<f", record, 32)
    whole = flag <= 1 and value == int(value)
    return record[32 + 4 * flag : 8 + length], int(value) if whole else None


def _first_integer(values: bytes) -> int | None:
    """Returns the integer of a serialised Int64List of one, packed or not, else None."""
    packed = dict(_messages(values, 1)).get(1) if values[:1] == b"\x0a" else values[1:]
    if not packed or sum(byte < 0x80 for byte in packed) != 1:
        return None
    number = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(packed))
    return number - 2**64 if number >= 2**63 else number
