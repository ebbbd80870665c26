"""Stored maps: of each image of a data set where its class is seen, in one file.

The file is NumPy's ``.npy``, uint8 (N, h, w), so that `numpy.load` reads it, with the names of the
images behind the array: UTF-8, each after a zero byte. In a graph a map is read by its number, with
a part of the file mapped to memory, so that 1.3 million maps of 14 x 14 (250 MB) cost nothing to
begin with.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._dali import graph_function
from dali_cutmix.data.atomic import atomic_write

__all__ = ["Maps", "Unfinished", "find_maps", "follow", "write_maps"]

_MOST = 256  # cells along an axis
_END = b"\0"


@dataclass(frozen=True, slots=True)
class Maps:
    """A file of maps that was found, see `find_maps`.

    Attributes:
        path: of the file.
        shape: (N, h, w).
        digest: short text that is equal for equal files.
    """

    path: str
    shape: tuple[int, int, int]
    digest: str

    def numbers(self, files: Sequence[str]) -> list[int]:
        """Returns the number of the map of each file.

        Raises:
            ValueError: a file has none.
        """
        names = _names(self.path, self.shape)
        number = {name: k for k, name in enumerate(names)}
        lacking = [file for file in files if file.replace(os.sep, "/") not in number]
        if lacking:
            listed = ", ".join(map(repr, lacking[:3])) + (", …" if len(lacking) > 3 else "")
            raise ValueError(
                f"`saliency` must have a map for each of the {len(files)} images, {self.path!r} "
                f"lacks {len(lacking)}: {listed}. `dali-cutmix saliency` makes them, by the paths "
                "within the folder that is read."
            )
        return [number[file.replace(os.sep, "/")] for file in files]


def find_maps(path: Any) -> Maps:
    """Returns the file of maps at a path.

    Raises:
        TypeError, FileNotFoundError: it is no path, or there is no file.
        ValueError: the file is not what `write_maps` writes, or it is not complete.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`saliency` must be a file of maps, got {path!r}.")
    path = os.path.abspath(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`saliency` must be an existing file of maps, got {path!r}.")
    shape, _ = _header(path)
    _names(path, shape)
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            hashed.update(part)
    return Maps(path, shape, hashed.hexdigest()[:16])


def _header(path: str) -> tuple[tuple[int, int, int], int]:
    """Returns the shape of the array, and where it begins."""
    wrong = f"`saliency` must be a file of maps, as `dali-cutmix saliency` writes it, got {path!r}"
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise ValueError(f"{wrong}: {error}.") from error
        if version != (1, 0) or dtype != np.uint8 or len(shape) != 3 or by_columns:
            raise ValueError(f"{wrong}: {dtype} of shape {shape}.")
        return (shape[0], shape[1], shape[2]), file.tell()


def _names(path: str, shape: tuple[int, int, int]) -> list[str]:
    """Returns the names of the images, which are behind the array."""
    _, start = _header(path)
    with open(path, "rb") as file:
        file.seek(start + shape[0] * shape[1] * shape[2])
        names = file.read().split(_END)
    if len(names) != shape[0] + 1 or names[0]:
        raise ValueError(
            f"`saliency` must be a complete file of maps, got {path!r} with {len(names) - 1} names "
            f"for {shape[0]} maps."
        )
    return [name.decode("utf-8", "surrogateescape") for name in names[1:]]


def write_maps(path: str, names: Sequence[str], maps: NDArray[np.uint8]) -> None:
    """Writes a file of maps, uint8 (N, h, w), at once and complete, or not at all.

    Args:
        names: of the images, as `find_source` has them: paths within the folder, with ``/``.

    Raises:
        ValueError: there are not as many different names as maps, or they are too large.
        OSError: it cannot be written.
    """
    if maps.ndim != 3 or maps.dtype != np.uint8 or not 0 < max(maps.shape[1:]) <= _MOST:
        raise ValueError(
            f"`maps` must be uint8 (N, h, w), h and w at most {_MOST}, got {maps.dtype} of shape "
            f"{maps.shape}."
        )
    if len(names) != len(maps) or len(set(names)) != len(names):
        raise ValueError(
            f"`names` must be different, one for each of the {len(maps)} maps, got "
            f"{len(set(names))} of {len(names)}."
        )
    content = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": maps.shape}
    np.lib.format.write_array_header_1_0(content, header)
    content.write(np.ascontiguousarray(maps).tobytes())
    for name in names:
        content.write(_END + name.encode("utf-8", "surrogateescape"))
    atomic_write(path, content.getvalue())


class Unfinished:
    """Maps on the way to a file: what was added stays after a crash, and is gone on with.

    In ``FILE.part``, a line for each map; a line that was cut short counts as none.

    Args:
        path: of the file.
        made_by: by what the maps are made; those of a part that was made otherwise are refused.

    Attributes:
        maps: the map of each name that is there.
    """

    def __init__(self, path: str, made_by: dict[str, Any]) -> None:
        self.path, self._part = path, f"{path}.part"
        self.maps: dict[str, NDArray[np.uint8]] = {}
        begin = json.dumps(made_by, sort_keys=True).encode() + b"\n"
        content = b""
        if os.path.exists(self._part):
            with open(self._part, "rb") as file:
                content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if whole and not whole.startswith(begin):
            raise ValueError(
                f"{self._part!r} must be of the same model and options, got those of "
                f"{whole.splitlines()[0].decode()}: delete it to begin anew."
            )
        for line in whole.splitlines()[1:]:
            name, shape, text = json.loads(line)
            self.maps[name] = np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)
        # What was cut short goes, and is made again.
        self._file = open(self._part, "r+b" if content else "w+b")
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not whole:
            self._file.write(begin)
            self._file.flush()

    def add(self, names: Sequence[str], maps: NDArray[np.uint8]) -> None:
        """Adds the maps, uint8 (n, h, w), of some images."""
        for name, one in zip(names, maps, strict=True):
            self.maps[name] = one
            text = base64.b64encode(one.tobytes()).decode()
            self._file.write(json.dumps([name, one.shape, text]).encode() + b"\n")
        self._file.flush()

    def finish(self, names: Sequence[str]) -> None:
        """Writes the file, of the maps of these names, and removes the part."""
        write_maps(self.path, names, np.stack([self.maps[name] for name in names]))
        self.close()
        os.unlink(self._part)

    def close(self) -> None:
        """Lets go of the part."""
        self._file.close()


# In a graph


@graph_function
def follow(
    maps: DataNode, start: DataNode, shape: DataNode, whole: DataNode, width: DataNode
) -> DataNode:
    """Returns maps as their images are cropped and mirrored, float32, as many cells as before.

    Args:
        maps: uint8 (h, w), of whole images.
        start, shape: of the crop, int64 (2,), in pixels.
        whole: size of the image, int32 (2,).
        width: of what the crop is resized to; a negative one mirrors.
    """
    cells = fn.cast(maps.shape(dtype=types.INT32), dtype=types.FLOAT)
    scale = cells / whole
    sign = fn.cast(width > 0.0, dtype=types.FLOAT) * 2.0 - 1.0
    resized = fn.resize(
        fn.reshape(fn.expand_dims(maps, axes=[2]), layout="HWC"),
        resize_y=cells[0],
        resize_x=cells[1] * sign,
        roi_start=start * scale,
        roi_end=(start + shape) * scale,
        interp_type=types.INTERP_LINEAR,
        antialias=False,
        dtype=types.FLOAT,
    )
    found = cast("DataNode", resized)  # by its annotation it may be several, or None
    return fn.reshape(fn.squeeze(found, axes=[2]), layout="")
