"""Where images and labels come from: the kind of a data set, whether it is complete, its index.

    folder      ImageFolder: one folder a class
    list        text file: one "path label" a line
    webdataset  tar files, a sample being files of one name: 0001.jpg, 0001.cls
    tfrecord    TFRecord files of tf.train.Example
    recordio    one RecordIO file of MXNet's im2rec

The last three, in `tars`, `tfrecords` and `recordio`, are read by an index (`indexes`). What a
path names is in `paths`; lists are in `listed`, and folders in `folders`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dali_cutmix._rules import warn
from dali_cutmix._validation import checked_choice, checked_indices, checked_int, checked_number
from dali_cutmix.data.folders import (
    class_folders,
    class_names,
    folder_entries,
    holds_image,
    image_files,
    is_nested,
    names_and_nesting,
    names_of_images,
)
from dali_cutmix.data.formats import indexes, tars, tfrecords
from dali_cutmix.data.formats.coco import Annotations, read_annotations
from dali_cutmix.data.formats.indexes import Progress, make_index
from dali_cutmix.data.formats.listed import is_there, read_list, read_target_list
from dali_cutmix.data.formats.paths import (
    INDEXED,
    Kind,
    Paths,
    is_remote,
    named_files,
    path_text,
)
from dali_cutmix.data.masks import Masks, fault_of, look_at, mask_path, pair, type_of
from dali_cutmix.data.pairs import warn_unused
from dali_cutmix.data.pixel_format import RGB8, PixelFormat
from dali_cutmix.data.saliency import Maps, find_maps
from dali_cutmix.data.targets import IN_LIST, Targets, targets_of_files

_LOOKED_AT = 20_000  # names
_MASKS_LOOKED_AT = 20
_MOST_SAMPLES = 100_000_000

Samples = Sequence[tuple[Paths, int]]

__all__ = [
    "Samples",
    "Source",
    "damaged",
    "filled",
    "find_source",
    "index",
    "make_index",
    "missing_indexes",
    "tail_heavy",
    "unchecked_source",
    "unusual_files",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set that was found; made by `find_source`.

    Attributes:
        kind: ``"folder"``, ``"list"``, ``"webdataset"``, ``"tfrecord"`` or ``"recordio"``.
        paths: the folder, the list, or the shards.
        index_paths: the index of each shard; empty where none is needed.
        file_root, files, labels: of a list: paths within the root, labels with the offset added,
            or the numbers of rows of `targets`, or of rules of `masks`.
        targets: the table of targets beyond one class, else None.
        masks: where the masks of the images are, else None.
        annotations: of boxes, of a list whose labels are the ids of its images, else None.
        fields: names of the image and the label in a sample: extensions (``"jpg;png"``) of
            WebDataset, features of TFRecord.
        classes: names of the classes, of a folder.
        num_classes: of a folder, of a list the highest label plus 1, of targets their columns; else
            None.
        saliency: maps of the images, of a list, else None.
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
    targets: Targets | None = None
    masks: Masks | None = None
    annotations: Annotations | None = None
    saliency: Maps | None = None

    @property
    def remote(self) -> bool:
        return is_remote(self.paths[0])

    @property
    def identity(self) -> str:
        """Short text that is equal for the same samples in the same order, wherever they lie.

        Of files it has the names, of shards the names and sizes, not the contents; of a remote
        folder nothing.
        """
        names: Any = []
        if self.kind in INDEXED:
            names = [os.path.basename(path) for path in self.paths]
        if names and not self.remote:
            names += [os.path.getsize(path) for path in self.paths]
        if self.kind == "folder" and not self.remote:
            hashed = hashlib.sha256()  # class by class: a million names are 200 MB
            for name in self.classes or ():
                inside = names_of_images(os.path.join(self.paths[0], name))
                hashed.update(repr((name, inside)).encode("utf-8", "surrogateescape"))
            names = hashed.hexdigest()
        facts = (
            names,
            self.files,
            self.labels,
            self.classes,
            self.fields,
            self.size,
            self.label_offset,
            *(() if self.targets is None else (self.targets.digest,)),
            *(() if self.masks is None else self.masks[1:3]),
            *(() if self.annotations is None else (self.annotations.digest,)),
            *(() if self.saliency is None else (self.saliency.digest,)),
        )
        return f"{self.kind} {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def find_source(
    source: Paths | Sequence[Paths] | Samples,
    *,
    kind: Kind | None = None,
    classes: Sequence[str] | Literal["natural"] | None = None,
    targets: Any = None,
    masks: Paths | None = None,
    mask_names: tuple[str, str] | None = None,
    annotations: Paths | None = None,
    saliency: Paths | None = None,
    subset: Sequence[int] | None = None,
    weights: Sequence[float] | Literal["balanced"] | None = None,
    repeated: bool = False,
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
            shards and patterns. Shards and a folder of classes may be at s3:// or gs://. Or
            samples: a sequence of (path, label), a pair of arrays, (paths, labels), or a data set
            with such ``samples``, as those of torchvision and timm.
        kind: for a folder that holds both classes and shards, or a file with another ending.
        classes: the names of the classes, by label: ``train.classes`` for validation, of which a
            subset may be there. Folders are numbered by name, and one with another name is
            refused. Of lists and shards they are the names of the labels. ``"natural"`` for
            folders that are numbers: 2 before 10. By default folders are sorted as text.
        targets: more than one class per image: several labels, a row of numbers (one-hot, soft or
            other), or a number to be predicted. A CSV file (a header; a column of files; one of
            names, or columns of numbers) or a JSON file (``{"file": value}``) with an entry for
            every image of the folder, wherever in it, or of the list or the paths that are
            `source`; the same as a mapping; or an array with a row for each of the paths. Of a list
            whose lines have numbers behind the path, ``"labels"`` or ``"rows"``. The loaders then
            yield float32 (N, K), mixed by lam; `classes` are the names of the columns.
        masks: a folder with a mask for each image of the folder, the list or the paths that are
            `source`: a gray image of 8 or 16 bits, as large as the image, of the same name but for
            its ending, see `data.masks`. Then `classes` are the names of the classes in the masks.
        mask_names: where the names differ: how those of images and of masks end, such as
            ``("_leftImg8bit.png", "_gtFine_labelIds.png")``.
        annotations: boxes of objects, for `detection_loader`: a JSON file as COCO has it, of images
            within the folder that is `source`. Its classes are numbered from 1 by the ids of their
            categories, or as `classes` has their names; 0 is the background.
        saliency: a file with a map of each image of the folder, the list or the paths, as
            `dali-cutmix saliency` makes it, for methods that look at them. A file may have more.
        subset: indices of samples, of a folder, a list or samples, in the order to read them
            without shuffling; an index may come several times.
        weights: how often samples come in an epoch, of a folder, a list or samples: a number above
            0 for each, after `subset`, or ``"balanced"``, by which every class comes as often as
            the largest one. The sample of the smallest weight comes once, others in proportion,
            rounded so that the sum is right; `Source.size` is how many there are. (Each epoch has
            the same; nothing is drawn.)
        repeated: a list may name an image several times, as lists do that balance classes.
        file_root: what the paths of a list are relative to, and what they must lie in; by default
            the folder of the list. May be s3:// or gs://.
        index_dir: where the indexes are, or are to be made; by default beside the shards.
        fields: (image, label), where they are not found by their usual names: extensions of
            WebDataset (several, separated by ``;``), or features of TFRecord.
        label_offset: added to each label: -1 for labels that begin at 1, as those of TFRecords
            made by tf-slim's scripts do.
        make_indexes: make the indexes that are missing; several processes may do so at once.
        progress: called with (bytes done, bytes in all) while indexes are made.

    A list has one "path label" a line, separated by a tab or else the last blank; a CSV has two
    columns, or names in its first line of which one is such as ``path`` and one such as ``label``;
    a ``.lst`` may be MXNet's, of index, label and path. Labels are whole numbers, or else names of
    classes, which are numbered by `classes` or as text is sorted. The usual fields are the image
    extensions and ``cls``, decimal text, of WebDataset, and ``image/encoded`` and
    ``image/class/label``, or ``image`` and ``label``, of TFRecord. One RecordIO file is read, not
    several: DALI takes a single index.

    What is checked: that all files exist; that TFRecords listed without a gap end where the file
    ends; that the last record of RecordIO, or of a tar and the zero block after it, ends there;
    that each sample of a tar has an image and a label; and the headers of a few dozen records. An
    index of other data of the same length is thereby found, unless all these headers agree. Not
    detected: a changed byte within a record, and single entries missing from RecordIO's index.
    Remote files are not checked.

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
    if not isinstance(repeated, bool):
        raise TypeError(f"`repeated` must be a bool, got {repeated!r}.")
    others = [
        name
        for name, value in (
            *(("targets", targets), ("masks", masks), ("mask_names", mask_names)),
            ("annotations", annotations),
        )
        if value is not None and (name != "mask_names" or masks is None)
    ]
    if len(others) > 1:
        raise ValueError(f"`{others[1]}` must be left out with `{others[0]}`.")
    if others:
        _only_for_labels(others[0], label_offset, fields, index_dir, repeated)
        if saliency is not None and others[0] != "targets":
            raise ValueError(f"`saliency` must be left out with `{others[0]}`.")
    if masks is not None or mask_names is not None:
        found = _with_masks(source, kind, masks, mask_names, classes, file_root)
        return _chosen(found, subset, weights)
    if annotations is not None:
        if kind is not None or file_root is not None:
            raise ValueError("`kind` and `file_root` must be left out with `annotations`.")
        found = _annotated(source, annotations, classes)
        return _chosen(_without_faults(found), subset, weights)
    if targets is not None:
        found = _with_targets(source, kind, targets, classes, file_root)
        return _chosen(found, subset, weights, saliency)
    samples = samples_of(source)
    if samples is not None:
        found = _samples(samples, label_offset)
        return _chosen(_named(found, _checked_classes(classes)), subset, weights, saliency)
    paths, kind = named_files(source, kind)
    found = Source(kind=kind, paths=paths, label_offset=label_offset)
    if kind not in INDEXED:
        for name, value in (("fields", fields), ("index_dir", index_dir)):
            if value is not None:
                raise ValueError(f"`{name}` must be left out for a {kind}, got {value!r}.")
    if kind != "list" and file_root is not None:
        raise ValueError(f"`file_root` must be left out but for a list, got {file_root!r}.")
    if kind == "folder":
        found = _folder(found, _checked_classes(classes, natural=True))
        return _chosen(found, subset, weights, saliency)
    names = _checked_classes(classes)
    if kind == "list":
        found = _named(_list(found, file_root, repeated, names), names)
        return _chosen(found, subset, weights, saliency)
    if subset is not None or weights is not None:
        name = "weights" if subset is None else "subset"
        raise ValueError(f"`{name}` must be left out for a {kind}: shards are read in order.")
    if saliency is not None:
        raise _no_paths(found)
    found = _shards(found, path_text(index_dir, "index_dir"), fields, make_indexes, progress)
    return _named(found, names)


def unchecked_source(
    source: Paths | Sequence[Paths] | Samples,
    *,
    annotations: Paths | None = None,
    classes: Sequence[str] | None = None,
    file_root: Paths | None = None,
    index_dir: Paths | None = None,
    label_offset: int = 0,
    masks: Paths | None = None,
    mask_names: tuple[str, str] | None = None,
) -> Source:
    """Returns the source as `find_source` does, but nothing of what is in it is checked.

    For `verify`, which finds all faults where `find_source` stops at the first one.

    Raises:
        FileNotFoundError, TypeError, ValueError: as for `find_source`, where nothing is there.
    """
    if annotations is not None and (masks is not None or mask_names is not None):
        raise ValueError("`masks` must be left out with `annotations`.")
    if masks is not None or mask_names is not None:
        return _with_masks(source, None, masks, mask_names, classes, file_root, checked=False)
    if annotations is not None:
        return _annotated(source, annotations, classes)
    paths, kind = named_files(source, None)
    found = Source(kind=kind, paths=paths, label_offset=label_offset)
    if kind == "folder":
        if not class_folders(paths[0]):
            class_names(paths[0])  # which says so
        return dataclasses.replace(found, file_root=os.path.abspath(paths[0]))
    if kind == "list":
        return dataclasses.replace(found, file_root=_root_of_list(paths[0], file_root))
    if found.remote:
        return found
    if kind == "tfrecord":  # its fields are read
        indexes.check_start(kind, paths[0])
    index_paths = indexes.find_indexes(paths, kind, path_text(index_dir, "index_dir"))
    return dataclasses.replace(found, index_paths=tuple(index_paths), fields=_fields(found, None))


def missing_indexes(source: Source) -> list[tuple[str, str]]:
    """Returns (shard, index to be made) for each shard whose index does not exist."""
    pairs = zip(source.paths, source.index_paths, strict=False)
    return [(p, i) for p, i in pairs if not is_remote(i) and not os.path.exists(i)]


def index(
    source: Paths | Sequence[Paths],
    out: Paths | None = None,
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Returns the paths of the index files made, for the shards that `source` names.

    Indexes that exist and fit are left alone. One that does not fit is left too, and the new one
    is made under the name of the shard plus ``.idx``, which is preferred; of that name, it is
    replaced. `out` is the folder for the indexes, made where it is missing, by default that of
    the shards; pass it to `find_source` as `index_dir`.

    Raises:
        PermissionError: the folder cannot be written.
        FileNotFoundError, ValueError: as for `find_source`, and for a damaged shard.
    """
    paths, kind = named_files(source, None)
    if kind not in INDEXED:
        return []
    if is_remote(paths[0]):
        raise ValueError(f"`source` must be on this machine to be indexed, got {paths[0]!r}.")
    if out is not None:
        os.makedirs(out, exist_ok=True)
    folder = path_text(out, "out")
    wanted = []
    for path, old in zip(paths, indexes.find_indexes(paths, kind, folder), strict=True):
        if not (os.path.exists(old) and indexes.fits(kind, path, old)):
            wanted.append((path, indexes.new_index(path, folder)))
    return indexes.make_all(wanted, progress)


def unusual_files(source: Source, each: int = 4) -> list[str]:
    """Returns a few files of each ending that is no JPEG's, of a folder or a list on this machine.

    Among the first names alone: to go through a million takes long.
    """
    if source.kind not in ("folder", "list") or source.remote or is_remote(source.file_root or ""):
        return []
    names: Iterable[str] = source.files
    root = source.file_root or source.paths[0]
    if source.kind == "folder":
        names = (
            os.path.join(name, file)
            for name in source.classes or ()
            for file in names_of_images(os.path.join(root, name))
        )
    found: dict[str, list[str]] = {}
    for name in islice(names, _LOOKED_AT):
        ending = os.path.splitext(name)[1].lower()
        if ending not in (".jpg", ".jpeg") and len(found.setdefault(ending, [])) < each:
            found[ending].append(os.path.join(root, name))
    return [path for paths in found.values() for path in paths]


def damaged(source: Source, limit: int = 5, to: PixelFormat = RGB8) -> list[str]:
    """Returns the first samples whose image or label cannot be read, as file and position in it.

    Reads every sample until `limit` are found, but none that is remote. For saying which
    file it was after DALI failed to decode it to a format.
    """
    from dali_cutmix.data.damage import unreadable_files  # its decoders are not needed to read

    found: list[str]
    if source.kind in ("folder", "list"):
        if source.remote or is_remote(source.file_root or ""):
            return []
        files: Iterable[str] = image_files(source.paths[0])
        if source.kind == "list":
            files = [os.path.join(source.file_root or "", name) for name in source.files]
        found = unreadable_files(files, to=to, limit=limit)
        if source.masks is not None:
            found += islice(_wrong_masks(source, source.masks), limit - len(found))
        return found
    found = []
    if source.remote or missing_indexes(source):
        return found
    for path, index_path in zip(source.paths, source.index_paths, strict=True):
        for where, image, label in indexes.samples(source.kind, path, index_path, source.fields):
            stream: Any = io.BytesIO(image)
            if label is None or label + source.label_offset < 0:
                found.append(f"{path} ({where}: label)")
            elif unreadable_files([stream], to=to):
                found.append(f"{path} ({where}: image)")
            if len(found) == limit:
                return found
    return found


def _wrong_masks(source: Source, masks: Masks) -> Iterator[str]:
    for file, rule in zip(source.files, source.labels, strict=True):
        mask = mask_path(masks, file, rule)
        if fault := fault_of(os.path.join(source.file_root or "", file), mask, masks):
            yield f"{mask} ({fault})"


# --- each kind


def _checked_classes(classes: Any, *, natural: bool = False) -> tuple[str, ...] | str | None:
    if classes is None or (natural and classes == "natural"):
        return None if classes is None else "natural"
    if not isinstance(classes, (list, tuple)) or not all(isinstance(c, str) for c in classes):
        raise TypeError(f"`classes` must be a list of class names, got {classes!r}.")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"`classes` must be different names, at least one, got {classes!r}.")
    return tuple(classes)


def _folder(found: Source, classes: tuple[str, ...] | str | None) -> Source:
    if found.label_offset:
        raise ValueError(
            f"`label_offset` must be 0 for a folder of classes, got {found.label_offset}."
        )
    if found.remote:
        return found
    root = found.paths[0]
    if classes is None or classes == "natural":
        found_names, nested = names_and_nesting(root)
        names = tuple(found_names)
        in_order = tuple(sorted(names, key=_natural))
        if classes == "natural":
            classes = in_order
        elif in_order != names and all(name.isdecimal() for name in names):
            warn(
                f"the class folders of {root!r} are numbers, and sorted as text, as torchvision "
                f"does: {names[1]!r} has label 1. For labels by number read with "
                'find_source(…, classes="natural").'
            )
    else:
        names = tuple(class_folders(root))
        unknown = [name for name in names if name not in set(classes)]
        if unknown:
            listed = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
            raise ValueError(f"`classes` must name every class folder of {root!r}, lacks {listed}.")
        nested = is_nested(root, names)
    used = names if classes is None else tuple(classes)
    # Without names of one's own none is empty, see class_names.
    whole = classes is None or all(holds_image(os.path.join(root, name)) for name in names)
    if used == names and whole and not nested:
        return dataclasses.replace(found, classes=names, num_classes=len(names))
    # DALI numbers folders as they come, and does not enter those inside: a list does as well.
    label = {name: k for k, name in enumerate(used)}
    files, labels = [], []
    for name in names:
        for entry in folder_entries(os.path.join(root, name)):
            if entry.is_image:
                files.append(os.path.relpath(entry.path, root))
                labels.append(label[name])
    if not files:
        raise FileNotFoundError(f"`source` must hold images in class folders, got {root!r}.")
    return dataclasses.replace(
        found,
        kind="list",
        file_root=os.path.abspath(root),
        files=tuple(files),
        labels=tuple(labels),
        classes=used,
        num_classes=len(used),
        size=len(files),
    )


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Returns a key by which numbers in names come in their order."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def samples_of(source: Any) -> Sequence[Any] | None:
    """Returns (path, label) pairs, where the source is a sequence of them or has one."""
    source = getattr(getattr(source, "reader", source), "samples", source)  # timm's, torchvision's
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], np.ndarray):
        paths, labels = np.asarray(source[0]), source[1]
        if paths.ndim != 1 or labels.dtype.kind not in "iu" or labels.shape != paths.shape:
            raise ValueError(
                "`source` of two arrays must be paths and as many integer labels, got shapes "
                f"{paths.shape} and {labels.shape} of {labels.dtype}. (Other values than one class "
                "are `targets` of find_source.)"
            )
        return list(zip(paths.tolist(), labels.tolist(), strict=True))
    if isinstance(source, (str, os.PathLike)) or not isinstance(source, Sequence) or not source:
        return None
    first = source[0]
    return source if isinstance(first, (tuple, list)) and len(first) == 2 else None


def _samples(samples: Sequence[Any], label_offset: int) -> Source:
    paths, labels = [], []
    for number, sample in enumerate(samples):
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise TypeError(f"`source` must be (path, label) pairs, got {sample!r} as {number}.")
        paths.append(path_text(sample[0]))
        labels.append(checked_int("label", sample[1], -(2**31), 2**31 - 1) + label_offset)
        if labels[-1] < 0:
            raise ValueError(
                f"the label with `label_offset` must be at least 0, got {labels[-1]} as {number}."
            )
    return dataclasses.replace(
        _files(paths),
        labels=tuple(labels),
        num_classes=max(labels) + 1,
        label_offset=label_offset,
    )


def _files(paths: Sequence[str]) -> Source:
    """Returns files that were given one by one, all of which must be there."""
    paths = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    files = tuple(os.path.relpath(path, root) for path in paths)
    there: dict[str, set[str]] = {}
    for file, path in zip(files, paths, strict=True):
        if not is_there(root, file, there):
            raise FileNotFoundError(f"`source` must name files that exist, got {path!r}.")
    return Source(kind="list", paths=(root,), file_root=root, files=files, size=len(files))


def _with_targets(source: Any, kind: Any, targets: Any, classes: Any, file_root: Any) -> Source:
    """Returns the images of a folder, a list or paths, with targets beyond one class."""
    names: Any = _checked_classes(classes)
    if isinstance(targets, str) and targets in IN_LIST:
        paths, kind = named_files(source, kind)
        if kind != "list":
            raise ValueError(
                f"`targets` must be a file, a mapping or an array where `source` is no list, got "
                f"{targets!r}."
            )
        root = _root_of_list(paths[0], file_root)
        files, table, numbers = read_target_list(paths[0], root, targets, names)
        assert table is not None
        found = Source(kind=kind, paths=paths, file_root=root, files=files, size=len(files))
    else:
        found = _images_alone(source, kind, file_root)
        by_name = isinstance(targets, (str, os.PathLike, Mapping))
        if not by_name and isinstance(source, (str, os.PathLike)) and found.kind == "list":
            raise ValueError(
                "`targets` must be a file or a mapping where `source` is a folder or a list, got "
                f"{type(targets).__name__}: whose rows are they? Give them with a list of paths."
            )
        table, numbers = targets_of_files(targets, found.files, found.file_root or "", names)
    return dataclasses.replace(
        found,
        labels=numbers,
        targets=table,
        classes=table.names,
        num_classes=table.columns,
    )


def _only_for_labels(
    beside: str, label_offset: int, fields: Any, index_dir: Any, repeated: bool
) -> None:
    """Refuses what has no meaning beside targets, masks or annotations."""
    given = {
        "label_offset": label_offset or None,
        "fields": fields,
        "index_dir": index_dir,
        "repeated": repeated or None,
    }
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"`{name}` must be left out with `{beside}`, got {value!r}.")


def _with_masks(
    source: Any,
    kind: Any,
    masks: Any,
    mask_names: tuple[str, str] | None,
    classes: Any,
    file_root: Any,
    *,
    checked: bool = True,
) -> Source:
    """Returns the images of a folder, a list or paths, with a mask each."""
    names: Any = _checked_classes(classes)
    folder = os.path.abspath(path_text(masks, "masks") or "")
    if masks is None or not os.path.isdir(folder):
        raise FileNotFoundError(f"`masks` must be an existing folder, got {masks!r}.")
    ends: tuple[str, str] | None = None
    if mask_names is not None:
        two = isinstance(mask_names, (tuple, list)) and len(mask_names) == 2
        if not two or not all(isinstance(name, str) and name for name in mask_names):
            raise ValueError(f"`mask_names` must be two ends of names, got {mask_names!r}.")
        ends = mask_names[0], mask_names[1]
    found = _images_alone(source, kind, file_root)
    where, rules, unused = pair(found.files, folder, ends, lacking_is_fault=checked)
    if found.paths[0] == found.file_root and not isinstance(source, (list, tuple)):
        warn_unused(unused, folder, "image")
    root = found.file_root or ""
    step = max(1, len(rules) // _MASKS_LOOKED_AT)
    some = [
        (os.path.join(root, file), mask_path(where, file, rule))
        for file, rule in list(zip(found.files, rules, strict=True))[::step]
    ]
    return dataclasses.replace(
        found,
        labels=rules,
        masks=where._replace(dtype=look_at(some) if checked else type_of(some)),
        classes=names,
        num_classes=None if names is None else len(names),
    )


def _images_alone(source: Any, kind: Any, file_root: Any) -> Source:
    """Returns the images of a folder, in it and in folders inside, of a list, or of paths."""
    if isinstance(source, np.ndarray):
        source = source.tolist()
    if isinstance(source, (list, tuple)):
        if not source:
            raise ValueError("`source` must name at least one image, got an empty sequence.")
        return _files([path_text(path) for path in source])
    if os.path.isdir(root := os.path.abspath(path_text(source))):
        if kind not in (None, "folder") or file_root is not None:
            raise ValueError("`kind` and `file_root` must be left out for a folder of images.")
        entries = [entry.path for entry in folder_entries(root) if entry.is_image]
        if not entries:
            raise FileNotFoundError(f"`source` must hold images, got {root!r}.")
        files = tuple(os.path.relpath(path, root) for path in entries)
        return Source(kind="list", paths=(root,), file_root=root, files=files, size=len(files))
    (path, *_), kind = named_files(source, kind)
    if kind != "list":
        raise ValueError(f"`targets` and `masks` must be left out for a {kind}.")
    root = _root_of_list(path, file_root)
    files, _, _ = read_target_list(path, root, None, None)
    return Source(kind=kind, paths=(path,), file_root=root, files=files, size=len(files))


def _annotated(source: Any, annotations: Any, classes: Any) -> Source:
    """Returns the images of a file of annotations, with what is wrong with them."""
    root, path = path_text(source), path_text(annotations, "annotations")
    if is_remote(root) or is_remote(path) or not os.path.isdir(root):
        raise ValueError(
            f"`source` must be a folder on this machine with `annotations`, got {root!r}."
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`annotations` must be a file, got {path!r}.")
    root, path = os.path.abspath(root), os.path.abspath(path)
    names: Any = _checked_classes(classes)
    found, numbers, names = read_annotations(path, root, names)
    return Source(
        kind="list",
        paths=(root,),
        file_root=root,
        files=tuple(numbers),
        labels=tuple(numbers.values()),
        classes=names,
        num_classes=len(names),
        size=len(numbers),
        annotations=found,
    )


def _without_faults(found: Source) -> Source:
    """Returns annotated images; raises where something is wrong with one."""
    assert found.annotations is not None
    faults = found.annotations.faults
    if not faults:
        return found
    file, problem, detail = faults[0]
    error = FileNotFoundError if problem == "missing" else ValueError
    more = f", and {len(faults) - 1} more fault(s)" if len(faults) > 1 else ""
    raise error(
        f"{found.annotations.path!r} must fit its images, got {file!r}: {detail}{more}. "
        "`dali-cutmix check IMAGES --annotations FILE` names them all, and "
        '`on_error="skip"` of the loader leaves such images out.'
    )


def _named(found: Source, classes: tuple[str, ...] | str | None) -> Source:
    """Returns a list or shards with the names of their labels."""
    if classes is None:
        return found
    if found.num_classes is not None and found.num_classes > len(classes):
        raise ValueError(
            f"`classes` must name the {found.num_classes} classes of {found.paths[0]!r}, got "
            f"{len(classes)} names."
        )
    return dataclasses.replace(found, classes=tuple(classes), num_classes=len(classes))


def _chosen(found: Source, subset: Any, weights: Any, saliency: Any = None) -> Source:
    """Returns samples by index, as often as their weights say, and with maps, as a list."""
    if subset is None and weights is None and saliency is None:
        return found
    if saliency is not None and found.remote:
        raise _no_paths(found)
    found = _listed(found)
    if subset is not None:
        found = _at(found, checked_indices("subset", subset, len(found.files)))
    if weights is not None:
        found = _at(found, _repeats(found, weights))
    if saliency is not None:
        maps = find_maps(saliency)
        maps.numbers(found.files)  # fails unless each has one
        found = dataclasses.replace(found, saliency=maps)
    return found


def _no_paths(found: Source) -> ValueError:
    return ValueError(
        f"`saliency` must be left out for {found.paths[0]!r}: maps are found by the paths of "
        "images on this machine. In a pipeline of your own give them to mix()."
    )


def _listed(found: Source) -> Source:
    """Returns a folder as a list."""
    if found.kind != "folder":
        return found
    root = found.paths[0]
    if found.remote:
        raise ValueError(f"`subset` and `weights` must be left out for the remote {root!r}.")
    number = {name: k for k, name in enumerate(found.classes or ())}
    files = tuple(os.path.relpath(file, root) for file in image_files(root))
    return dataclasses.replace(
        found,
        kind="list",
        file_root=os.path.abspath(root),
        files=files,
        labels=tuple(number[file.split(os.sep)[0]] for file in files),
        size=len(files),
    )


def _at(found: Source, indices: Sequence[int]) -> Source:
    return dataclasses.replace(
        found,
        files=tuple(found.files[i] for i in indices),
        labels=tuple(found.labels[i] for i in indices),
        size=len(indices),
    )


def _repeats(found: Source, weights: Any) -> list[int]:
    """Returns the index of each sample, as often as it comes in an epoch."""
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(f'`weights` must be "balanced" or numbers, got {weights!r}.')
        beside = {
            "targets": found.targets,
            "masks": found.masks,
            "annotations": found.annotations,
        }
        for name, value in beside.items():
            if value is not None:
                raise ValueError(f'`weights` must be numbers with `{name}`, got "balanced".')
        counts = _counts_by_class(found.labels, 1.0)
    else:
        shares = np.array([checked_number("weights", weight) for weight in weights])
        if len(shares) != len(found.files) or shares.min() <= 0:
            raise ValueError(
                f"`weights` must be {len(found.files)} numbers above 0, one for each sample, got "
                f"{len(shares)}" + (f" from {shares.min():g} on." if len(shares) else ".")
            )
        shares = shares / shares.min()
        counts = np.floor(shares).astype(np.int64)
        # What is left of the sum goes to those whose shares were cut most.
        rest = round(float(shares.sum())) - int(counts.sum())
        counts[np.argsort(counts - shares, kind="stable")[:rest]] += 1
    _check_epoch(counts)
    return np.repeat(np.arange(len(counts)), counts).tolist()


def tail_heavy(found: Source, alpha: float) -> Source:
    """Returns the samples of a folder or a list, each as often as 1 / n ** alpha says, as a list.

    Of a class of n samples, where the largest has m, come n * (m / n) ** alpha, rounded, in all;
    each sample of it as often as any other, or once more. With alpha 1 every class comes alike,
    with 0 every sample.

    Raises:
        ValueError: samples have no class, or an epoch would be too long.
    """
    if found.kind not in ("folder", "list") or found.targets is not None:
        raise ValueError(
            "`source` must be a folder, a list or samples of one class each where samples are "
            f"weighed by their class, got {found.kind}"
            + (" with targets." if found.targets is not None else ".")
        )
    found = _listed(found)
    counts = _counts_by_class(found.labels, alpha)
    _check_epoch(counts)
    return _at(found, np.repeat(np.arange(len(counts)), counts).tolist())


def filled(found: Source, multiple: int) -> Source:
    """Returns a folder or a list with as many samples as fill all batches of an epoch, as a list.

    A reader would pad the last batch with one sample again and again. Instead samples that are
    spread evenly over the list come once more. Others than folders and lists stay as they are.
    """
    if found.kind not in ("folder", "list") or found.remote:
        return found
    found = _listed(found)
    total = -(-len(found.files) // multiple) * multiple
    return _at(found, (np.arange(total) * len(found.files) // total).tolist())


def _counts_by_class(labels: Sequence[int], alpha: float) -> NDArray[np.int64]:
    """Returns how often each sample comes, see `tail_heavy`."""
    _, class_of, sizes = np.unique(np.array(labels), return_inverse=True, return_counts=True)
    totals = np.rint(sizes * (sizes.max() / sizes) ** alpha).astype(np.int64)
    order = np.argsort(class_of, kind="stable")
    number = np.empty(len(order), np.int64)  # of each sample within its class
    number[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    each, more = totals // sizes, totals % sizes
    counts: NDArray[np.int64] = each[class_of] + (number < more[class_of])
    return counts


def _check_epoch(counts: NDArray[np.int64]) -> None:
    if counts.sum() > _MOST_SAMPLES:
        raise ValueError(
            f"`weights` must make an epoch of at most {_MOST_SAMPLES:,} samples, got "
            f"{counts.sum():,}: raise the smallest ones."
        )


def _list(found: Source, file_root: Any, repeated: bool, classes: Any) -> Source:
    path = found.paths[0]
    if found.remote:
        raise ValueError(
            f"`source` must be a list on this machine, got {path!r}: copy it here, "
            "and read with find_source(…, file_root=…) for its remote images."
        )
    root = _root_of_list(path, file_root)
    files, labels, names = read_list(
        path, root, found.label_offset, repeated=repeated, classes=classes
    )
    if min(labels) == 1 and names is None:
        warn(
            f"the labels of {path!r} begin at 1, so that no image is of class 0. If they are to "
            "begin at 0, read with find_source(…, label_offset=-1)."
        )
    return dataclasses.replace(
        found,
        file_root=root,
        files=files,
        labels=labels,
        classes=names,
        num_classes=max(labels) + 1 if names is None else len(names),
        size=len(labels),
    )


def _root_of_list(path: str, file_root: Any) -> str:
    root: str = os.path.dirname(path) if file_root is None else path_text(file_root, "file_root")
    return root if is_remote(root) else os.path.abspath(root)


def _shards(
    found: Source,
    index_dir: str | None,
    fields: Any,
    make_indexes: bool,
    progress: Progress | None,
) -> Source:
    _check_fields(found.kind, fields)
    if found.remote:
        _check_passed(found, index_dir, fields)
    else:
        for path in found.paths:
            indexes.check_start(found.kind, path)
    index_paths: Sequence[str] = ()
    names = _fields(found, fields)
    if not (found.remote and index_dir is None):
        index_paths = indexes.find_indexes(found.paths, found.kind, index_dir)
    found = dataclasses.replace(found, index_paths=tuple(index_paths), fields=names)
    missing = missing_indexes(found)
    if missing and found.remote:
        raise FileNotFoundError(f"the index {missing[0][1]!r} of {missing[0][0]!r} must exist.")
    if missing and make_indexes:
        if index_dir is not None:
            os.makedirs(index_dir, exist_ok=True)
        indexes.make_all(missing, progress)
    size = indexes.checked_size(found.kind, found.paths, index_paths, names)
    return dataclasses.replace(found, size=size)


def _check_fields(kind: Kind, fields: Any) -> None:
    if fields is None:
        return
    if kind == "recordio":
        raise ValueError(f"`fields` must be left out for RecordIO, got {fields!r}.")
    two = isinstance(fields, (tuple, list)) and len(fields) == 2
    if not two or not all(isinstance(name, str) and name for name in fields):
        raise ValueError(f"`fields` must be two names, (image, label), got {fields!r}.")


def _check_passed(found: Source, index_dir: str | None, fields: Any) -> None:
    """Refuses remote shards without what cannot be found out there."""
    if index_dir is None and found.kind != "webdataset":
        raise ValueError(
            f"`index_dir` of find_source must be given for {found.kind} at {found.paths[0]!r}: "
            "the folder, or address, with an index <name of the shard>.idx per shard."
        )
    if fields is None and found.kind == "tfrecord":
        raise ValueError(
            f"`fields` of find_source must be given for TFRecords at {found.paths[0]!r}: "
            f"the features with image and label, for example {tfrecords.USUAL_FIELDS[0]!r}."
        )


def _fields(found: Source, fields: Any) -> tuple[str, str] | None:
    """Returns the names of image and label, those that are usual where none were passed."""
    if found.kind == "tfrecord" and not found.remote:
        return tfrecords.features(found.paths[0], fields)
    if found.kind == "webdataset" and fields is None:
        return tars.USUAL_FIELDS
    return None if fields is None else tuple(fields)
