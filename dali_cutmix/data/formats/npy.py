"""Files of NumPy (.npy): what their headers say, and whether a graph can read them."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

__all__ = ["Header", "header_of"]


class Header(NamedTuple):
    """Fields: name of the type, shape, and where in the file the values begin."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


def header_of(path: str) -> Header:
    """Returns the header of a file whose values a graph can read.

    That is, an array as np.save writes it: little-endian, in C order, as long as its shape says.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else; says what, without the path.
    """
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version[0]}.{version[1]}, not 1.0")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except (ValueError, EOFError) as error:
            raise ValueError(f"is no .npy file that np.save writes: {error}") from error
        offset, size = file.tell(), os.fstat(file.fileno()).st_size
    if fortran and len(shape) > 1:
        raise ValueError(
            "is in Fortran order: write it anew, np.save(path, np.ascontiguousarray(np.load(path)))"
        )
    if dtype.hasobject or dtype.names is not None or dtype.byteorder == ">":
        raise ValueError(f"must hold little-endian numbers, got {dtype}")
    expected = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != expected:
        raise ValueError(f"must have {expected:,} bytes by its header, got {size:,}")
    return Header(dtype.name, tuple(shape), offset)
