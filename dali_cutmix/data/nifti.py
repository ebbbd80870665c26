"""NIfTI files become .npy files, once, before training: by nibabel, which training does not need.

Axes are turned to the nearest of RAS, so that in every array D goes from the feet to the head, H
from back to front and W from left to right. Nothing is resampled: the spacing, in mm, is in a JSON
beside each array.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np

from dali_cutmix._validation import checked_choice, checked_int
from dali_cutmix.data.atomic import atomic_write
from dali_cutmix.data.volumes import MaskType, VolumeType

__all__ = ["convert_nifti"]

_ENDINGS = (".nii", ".nii.gz")
_VERSION = 1  # of what a file becomes

Progress = Callable[[int, int], object]


def convert_nifti(
    source: str,
    out: str,
    *,
    masks: bool = False,
    dtype: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[str], int]:
    """Returns the .npy files made of a folder of .nii and .nii.gz files, and how many were there.

    Volumes become (D, H, W), or (C, D, H, W) where a file has a fourth axis. Each file appears
    complete or not at all, its JSON last, so that what was interrupted goes on, and what has not
    changed is left alone.

    Args:
        source, out: folders; those inside are kept.
        masks: the files are masks: integers, which are left as they are.
        dtype: of the arrays, which must be one for all: ``"uint8"``, ``"int16"`` or ``"float32"``,
            by default that of the file if it is one of these and not scaled, else float32. Of masks
            any integer type, by default uint8. Values that do not fit are an error.
        threads: by default the cores this process may use.
        progress: called with (files done, in all).

    Raises:
        ImportError: nibabel is not installed.
        FileNotFoundError: there is no such folder, or nothing in it.
        ValueError: an argument is wrong, or a file cannot be converted, which is named.
    """
    if dtype is not None:
        checked_choice("dtype", dtype, get_args(MaskType if masks else VolumeType))
    threads = checked_int("threads", threads or len(os.sched_getaffinity(0)), 1, 1024)
    _nibabel()
    if not os.path.isdir(source):
        raise FileNotFoundError(f"`source` must be a folder of NIfTI files, got {source!r}.")
    names = sorted(_files(source))
    if not names:
        raise FileNotFoundError(f"`source` must hold .nii or .nii.gz files, {source!r} has none.")
    stems = [name[: name.lower().rindex(".nii")] for name in names]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(
            f"`source` must have one file of a name, got {twice!r} as .nii and .nii.gz"
        )
    wanted = "uint8" if masks and dtype is None else dtype

    def convert(number: int) -> str | None:
        path, target = (os.path.join(*x) for x in ((source, names[number]), (out, stems[number])))
        return _converted(path, target, masks, wanted)

    made = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done, path in enumerate(pool.map(convert, range(len(names))), 1):
                made += [] if path is None else [path]
                if progress is not None:
                    progress(done, len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return made, len(names) - len(made)


def _nibabel() -> Any:
    try:
        import nibabel  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError(
            "nibabel must be installed to read NIfTI: pip install 'dali-cutmix[nifti]'"
        ) from error
    return nibabel


def _files(root: str) -> Iterator[str]:
    for folder, inside, names in os.walk(root, followlinks=True):
        inside[:] = [name for name in inside if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(_ENDINGS) and not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root)


def _converted(path: str, target: str, masks: bool, dtype: str | None) -> str | None:
    """Returns the array made of a file, or None where it is there."""
    array_path, about_path = f"{target}.npy", f"{target}.json"
    status = os.stat(path)
    made_of = [_VERSION, status.st_size, status.st_mtime_ns, masks, dtype]
    if os.path.exists(array_path) and _made_of(about_path) == made_of:
        return None
    try:
        array, about = _read(path, masks, dtype)
    except OSError:
        raise
    except Exception as error:  # nibabel raises many types
        raise ValueError(f"{path!r} cannot be converted: {error}") from error
    os.makedirs(os.path.dirname(array_path) or ".", exist_ok=True)
    encoded = io.BytesIO()
    np.save(encoded, array)
    atomic_write(array_path, encoded.getvalue())
    atomic_write(about_path, (json.dumps({**about, "made_of": made_of}) + "\n").encode())
    return array_path


def _made_of(about_path: str) -> Any:
    try:
        with open(about_path, encoding="utf-8") as file:
            return json.load(file)["made_of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(path: str, masks: bool, dtype: str | None) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Returns the array in C order, axes reversed, and what is known of it."""
    nibabel = _nibabel()
    image = nibabel.as_closest_canonical(nibabel.load(path))
    stored = np.asanyarray(image.dataobj)
    while stored.ndim > 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim not in (3, 4) or (masks and stored.ndim == 4):
        raise ValueError(f"must be of 3 axes{'' if masks else ' or 4'}, got shape {stored.shape}")
    if dtype is None:
        dtype = stored.dtype.name if stored.dtype.name in get_args(VolumeType) else "float32"
    array = _of_type(stored, dtype)
    spacing = [float(side) for side in image.header.get_zooms()[2::-1]]
    about = {
        "orientation": "RAS",
        "spacing": spacing,  # of D, H, W, in mm
        "shape": list(array.T.shape),
        "dtype": dtype,
        "affine": image.affine.tolist(),
    }
    return np.ascontiguousarray(array.T), about


def _of_type(stored: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Returns the values in a type; ValueError where an integer type does not hold them."""
    if dtype == "float32":
        return stored.astype(np.float32)
    kind = np.dtype(dtype)
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(kind).min, np.iinfo(kind).max)
    if stored.size and not (low <= stored.min() and stored.max() <= high):
        raise ValueError(f"must hold values of {dtype}, got {stored.min()} to {stored.max()}")
    if stored.dtype.kind == "f" and not np.array_equal(stored, np.rint(stored)):
        raise ValueError(f"must hold whole numbers to become {dtype}")
    return stored.astype(kind)
