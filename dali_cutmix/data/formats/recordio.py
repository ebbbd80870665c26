"""RecordIO, as MXNet's im2rec writes it.

A record is a magic number, a word with 3 bits of flag and 29 of length, the data, and up to 3
bytes that fill a word. Where the magic number stands in the data, the writer leaves it out and
splits the record there into parts, flagged 1 first, 2 between and 3 last; 0 is a record in one.
The data are a header of 24 bytes (number of labels, label, two ids), more labels, the image.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["begins", "misfit", "sample", "scan"]

_MAGIC = 0xCED7230A


def begins(start: bytes) -> bool:
    """Returns whether a file that starts so is RecordIO."""
    return len(start) >= 8 and struct.unpack_from("<I", start)[0] == _MAGIC


def scan(path: str, file: BinaryIO, total: int) -> Iterator[tuple[int, str]]:
    """Yields (bytes done, line of the index) for each record."""
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


def misfit(file: BinaryIO, total: int, offsets: NDArray[np.int64], spots: list[int]) -> str | None:
    """Returns how the sorted offsets of an index do not fit the file, reading some records."""
    ends = np.append(offsets[1:], total)
    if offsets[0] != 0 or (offsets >= ends).any():
        return "its records do not begin at byte 0, rise, and lie in the file"
    for i in spots:
        try:
            end = _record_end(file, int(offsets[i]), total)
        except ValueError:
            end = -1
        if end != ends[i]:
            return f"at byte {offsets[i]} there is no record that ends at byte {ends[i]}"
    return None


def sample(record: bytes) -> tuple[bytes, int | None]:
    """Returns the encoded image and the label of a record; None for a wrong label."""
    try:
        word, flag, value = struct.unpack_from("<IIf", record, 4)
        if flag == 1:
            (value,) = struct.unpack_from("<f", record, 32)
    except struct.error:  # too short for its header
        return b"", None
    valid = flag <= 1 and value.is_integer()
    return record[32 + 4 * flag : 8 + _length(word)], int(value) if valid else None


def _record_end(file: BinaryIO, at: int, total: int) -> int:
    """Returns where the record at a byte ends; raises ValueError(byte) where a part is none."""
    first = True
    while True:
        head = os.pread(file.fileno(), 8, at)
        magic, word = struct.unpack("<II", head.ljust(8, b"\0"))
        flag, end = word >> 29, at + 8 + (_length(word) + 3 & ~3)
        if magic != _MAGIC or end > total or (flag in (0, 1)) != first or flag > 3:
            raise ValueError(at)
        if flag in (0, 3):
            return end
        first, at = False, end


def _length(word: int) -> int:
    return word & (1 << 29) - 1
