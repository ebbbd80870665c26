"""Volumes with a mask each: which file is the mask of which volume, and what both are.

Both are .npy files in two folders, which may be one, paired by name, see `pairs`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np

from dali_cutmix._validation import checked_choice, checked_indices
from dali_cutmix.data.formats.npy import Header, header_of
from dali_cutmix.data.pairs import by_ends, check_lacking, warn_unused

__all__ = [
    "PROBLEMS",
    "Fault",
    "MaskType",
    "VolumeLayout",
    "VolumeType",
    "Volumes",
    "damaged_volumes",
    "find_volumes",
    "holds_volumes",
    "verify_volumes",
    "without_faults",
]

VolumeLayout = Literal["DHW", "DHWC", "CDHW"]
VolumeType = Literal["uint8", "int16", "float32"]
MaskType = Literal["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
MOST_CHANNELS = 16  # that can be mixed
PROBLEMS = {
    "missing": "is not there",
    "unreadable": "cannot be read",
    "header": "is no array that the loader reads",
    "kind": "is of another type, or has other axes or channels, than the first one",
    "shape": "is a mask of another shape than its volume",
    "classes": "is a mask with values that are no class",
    "values": "is a volume with NaN or infinite values",
}
_THREADS = 16  # to read headers, most of which wait for a disk

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """Volumes and their masks, which were found; made by `find_volumes`.

    Attributes:
        file_root, files: the folder of the volumes, and their paths within it, in order.
        mask_root: the folder of the masks.
        suffixes: the ends of a volume's and of its mask's path.
        layout: of the volumes; masks are DHW.
        channels: of every volume; 1 for DHW.
        dtype, mask_dtype: of every volume and of every mask.
    """

    file_root: str
    files: tuple[str, ...] = field(repr=False)
    mask_root: str
    suffixes: tuple[str, str] = (".npy", ".npy")
    layout: VolumeLayout = "DHW"
    channels: int = 1
    dtype: VolumeType = "float32"
    mask_dtype: MaskType = "uint8"

    def mask_of(self, file: str) -> str:
        """Returns the path of the mask of one of the files."""
        image_suffix, mask_suffix = self.suffixes
        return os.path.join(self.mask_root, file[: len(file) - len(image_suffix)] + mask_suffix)

    @property
    def identity(self) -> str:
        """Short text that is equal for the same names in the same order, wherever they lie."""
        facts = (self.files, self.suffixes, self.layout, self.channels, self.dtype, self.mask_dtype)
        return f"volumes {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


class Fault(NamedTuple):
    """What is wrong with a volume.

    Fields:
        file: of the volume, within its folder.
        path: of the volume or its mask, whichever it is.
        problem: a key of `PROBLEMS`.
        detail: what was expected, and what is there.
    """

    file: str
    path: str
    problem: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path!r} {self.detail or PROBLEMS[self.problem]}"


def holds_volumes(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder has a .npy file, at any depth."""
    return next(_npy_files(os.fspath(folder)), None) is not None


def find_volumes(
    images: str | os.PathLike[str],
    masks: str | os.PathLike[str],
    *,
    mask_names: tuple[str, str] | None = None,
    layout: VolumeLayout = "DHW",
    subset: Sequence[int] | None = None,
    skip: bool = False,
) -> Volumes:
    """Returns the volumes of a folder with their masks, whose headers were all read and compared.

    Args:
        images, masks: folders of .npy files, searched at every depth; may be one folder.
        mask_names: where the names of volumes and masks differ: how both end.
        layout: of the volumes, of DHW shape, or with up to 16 channels last or first. They are
            uint8, int16 or float32, all alike. Masks are DHW, of an integer type or bool, all
            alike.
        subset: indices of volumes, in the order of their paths as text: a fold of a
            cross-validation, say. An index may come several times.
        skip: find those too that have a fault (`verify_volumes` names them), unless it is the
            first one.

    Raises:
        FileNotFoundError: a folder, or the mask of a volume, is missing.
        TypeError, ValueError: an argument is wrong, or a file is no such array: the first ones are
            named.
    """
    image_root, mask_root = (
        _folder(name, path) for name, path in (("images", images), ("masks", masks))
    )
    checked_choice("layout", layout, get_args(VolumeLayout))
    suffixes = _suffixes(mask_names)
    files = _paired(image_root, mask_root, *suffixes)
    found = Volumes(
        file_root=image_root,
        files=tuple(files),
        mask_root=mask_root,
        suffixes=suffixes,
        layout=layout,
    )
    found = _described(found)
    faults = [] if skip else list(_faults(found, partial(_header_fault, found)))
    if faults:
        listed = "; ".join(map(str, faults[:3])) + ("; …" if len(faults) > 3 else "")
        raise ValueError(
            f"`images` and `masks` must be arrays that fit together, {len(faults)} of "
            f'{len(files)} do not: {listed}. (`on_error="skip"` leaves them out.)'
        )
    if subset is None:
        return found
    indices = checked_indices("subset", subset, len(files))
    return dataclasses.replace(found, files=tuple(files[i] for i in indices))


def verify_volumes(
    volumes: Volumes, *, num_classes: int | None = None, progress: Progress | None = None
) -> list[Fault]:
    """Returns what is wrong, by reading every volume and mask to its end.

    Args:
        num_classes: values of masks must be in [0, num_classes); None: any.
        progress: called with (volumes done, in all).
    """
    return list(_faults(volumes, partial(_fault, volumes, num_classes), progress))


def without_faults(volumes: Volumes, faults: Sequence[Fault]) -> Volumes:
    """Returns the volumes but for those with a fault.

    Raises:
        ValueError: none is left.
    """
    bad = {fault.file for fault in faults}
    files = tuple(file for file in volumes.files if file not in bad)
    if not files:
        raise ValueError(f"{volumes.file_root!r} must hold a good volume, has none: {faults[0]}.")
    return dataclasses.replace(volumes, files=files)


def damaged_volumes(
    volumes: Volumes, num_classes: int | None = None, limit: int = 5
) -> list[Fault]:
    """Returns the first faults, for saying which file it was after a graph failed."""
    found: list[Fault] = []
    for file in dict.fromkeys(volumes.files):
        fault = _fault(volumes, num_classes, file)
        if fault is not None:
            found.append(fault)
        if len(found) == limit:
            break
    return found


# Files


def _folder(name: str, path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be a folder of .npy files, got {path!r}.")
    if not os.fspath(path):  # which would be the current folder
        raise FileNotFoundError(f"`{name}` must be a folder of .npy files, got {path!r}.")
    root = os.path.abspath(os.fspath(path))
    if not os.path.isdir(root):
        raise FileNotFoundError(f"`{name}` must be a folder of .npy files, got {root!r}.")
    return root


def _suffixes(mask_names: Any) -> tuple[str, str]:
    """Returns how paths of volumes and of masks end."""
    if mask_names is None:
        return ".npy", ".npy"
    two = isinstance(mask_names, (tuple, list)) and len(mask_names) == 2
    if not two or not all(isinstance(end, str) and end.endswith(".npy") for end in mask_names):
        raise ValueError(
            "`mask_names` must be how the names of volumes and of masks end, such as "
            f'("_0000.npy", ".npy"), got {mask_names!r}.'
        )
    return mask_names[0], mask_names[1]


def _npy_files(root: str) -> Iterator[str]:
    """Yields the paths of .npy files within a folder, hidden ones left out, in any order."""
    for folder, inside, names in os.walk(root, followlinks=True):
        inside[:] = [name for name in inside if not name.startswith(".")]
        for name in names:
            if name.endswith(".npy") and not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root)


def _paired(image_root: str, mask_root: str, image_suffix: str, mask_suffix: str) -> list[str]:
    """Returns the volumes, sorted; raises where one has no mask."""
    there = set(_npy_files(mask_root))
    names = sorted(_npy_files(image_root))
    if image_root == mask_root:
        if image_suffix == mask_suffix:
            raise ValueError(
                "`mask_names` must be two different ends where `images` and `masks` are one "
                f"folder, got {image_suffix!r} for both."
            )
        if image_suffix.endswith(mask_suffix):
            there = {name for name in there if not name.endswith(image_suffix)}
        elif mask_suffix.endswith(image_suffix):
            names = [name for name in names if not name.endswith(mask_suffix)]
        names = [name for name in names if name.endswith(image_suffix)]
    if not names:
        raise FileNotFoundError(
            f"`images` must hold .npy files that end with {image_suffix!r}, {image_root!r} has "
            "none. (`dali-cutmix volumes` makes them of NIfTI.)"
        )
    found = by_ends(names, there, image_suffix, mask_suffix, "volume")
    lacking = [name for name, mask in zip(names, found, strict=True) if mask is None]
    check_lacking(lacking, len(names), mask_root, there, "volume")
    unused = there - {*found}
    warn_unused(sorted(n for n in unused if n.endswith(mask_suffix)), mask_root, "volume")
    return names


# Headers and values


def _described(found: Volumes) -> Volumes:
    """Returns the volumes with type and channels, which are those of the first one without fault.

    Raises:
        ValueError: there is none.
    """
    first: Fault | None = None
    for file in found.files:
        image, mask, fault = _headers(found, file)
        if image is not None and mask is not None:
            described = dataclasses.replace(
                found,
                channels=_channels(found.layout, image.shape),
                dtype=cast("VolumeType", image.dtype),  # checked below
                mask_dtype=cast("MaskType", mask.dtype),
            )
            fault = _header_fault(described, file)
            if fault is None:
                return described
        first = first or fault
    raise ValueError(f"`images` and `masks` must hold volumes with masks; of the first, {first}.")


def _channels(layout: str, shape: tuple[int, ...]) -> int:
    axis = layout.find("C")
    return shape[axis] if 0 <= axis < len(shape) else 1


def _faults(
    volumes: Volumes, check: Callable[[str], Fault | None], progress: Progress | None = None
) -> Iterator[Fault]:
    """Yields the faults of all files, in their order."""
    files = list(dict.fromkeys(volumes.files))
    threads = min(_THREADS, len(files)) if progress is None else len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done, fault in enumerate(pool.map(check, files), 1):
                if progress is not None:
                    progress(done, len(files))
                if fault is not None:
                    yield fault
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _headers(volumes: Volumes, file: str) -> tuple[Header | None, Header | None, Fault | None]:
    """Returns the headers of a volume and its mask, or what keeps them from being read."""
    found = []
    for path in (os.path.join(volumes.file_root, file), volumes.mask_of(file)):
        try:
            found.append(header_of(path))
        except FileNotFoundError:
            return None, None, Fault(file, path, "missing", "")
        except OSError as error:
            return None, None, Fault(file, path, "unreadable", f"cannot be read: {error.strerror}")
        except ValueError as error:
            return None, None, Fault(file, path, "header", str(error))
    return found[0], found[1], None


def _header_fault(volumes: Volumes, file: str) -> Fault | None:
    """Returns what is wrong by the headers of a volume and its mask."""
    image, mask, fault = _headers(volumes, file)
    if image is None or mask is None:
        return fault
    layout = volumes.layout
    path, mask_path = os.path.join(volumes.file_root, file), volumes.mask_of(file)
    if len(image.shape) != len(layout) or 0 in image.shape:
        detail = f"must be {layout} (`layout`), got shape {image.shape}"
        return Fault(file, path, "header", detail)
    if image.dtype not in get_args(VolumeType):
        detail = f"must be {', '.join(get_args(VolumeType))}, got {image.dtype}: convert it"
        return Fault(file, path, "header", detail)
    channels = _channels(layout, image.shape)
    if channels > MOST_CHANNELS:
        detail = f"must have at most {MOST_CHANNELS} channels, got {channels} by {layout!r}"
        return Fault(file, path, "header", detail)
    if (image.dtype, channels) != (volumes.dtype, volumes.channels):
        detail = (
            f"must be {volumes.dtype} with {volumes.channels} channel(s), as the first one, got "
            f"{image.dtype} with {channels}"
        )
        return Fault(file, path, "kind", detail)
    if mask.dtype not in get_args(MaskType):
        detail = f"must be a mask of class indices, integers, got {mask.dtype}"
        return Fault(file, mask_path, "header", detail)
    if mask.dtype != volumes.mask_dtype:
        detail = f"must be {volumes.mask_dtype}, as the first mask, got {mask.dtype}"
        return Fault(file, mask_path, "kind", detail)
    size = image.shape[1:] if layout == "CDHW" else image.shape[:3]
    if mask.shape != size:
        detail = f"must be of the shape of its volume, {size}, got {mask.shape}"
        return Fault(file, mask_path, "shape", detail)
    return None


def _fault(volumes: Volumes, num_classes: int | None, file: str) -> Fault | None:
    """Returns what is wrong with a volume or its mask, by headers and by all their values."""
    fault = _header_fault(volumes, file)
    if fault is not None:
        return fault
    path, mask_path = os.path.join(volumes.file_root, file), volumes.mask_of(file)
    try:
        mask = np.load(mask_path, allow_pickle=False)
        low, high = int(mask.min()), int(mask.max())
        if num_classes is not None and not 0 <= low <= high < num_classes:
            detail = f"must hold class indices in [0, {num_classes}), got {low} to {high}"
            return Fault(file, mask_path, "classes", detail)
        if volumes.dtype == "float32":
            finite = np.isfinite(np.load(path, allow_pickle=False))
            if not finite.all():
                detail = f"must be finite, {finite.size - int(finite.sum()):,} values are not"
                return Fault(file, path, "values", detail)
    except OSError as error:
        return Fault(file, path, "unreadable", f"cannot be read: {error.strerror}")
    return None
