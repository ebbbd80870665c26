"""TFRecord files of tf.train.Example: a length, the serialised example, and two checksums a record.

The checksums are not verified: DALI does not, either.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dali_cutmix import _protobuf

__all__ = ["USUAL_FIELDS", "begins", "features", "misfit", "sample", "scan"]

USUAL_FIELDS = (("image/encoded", "image/class/label"), ("image", "label"))  # tf-slim's, TFDS's

_AROUND = 16  # bytes of a record beside its example: length 8, checksums 4 before it, 4 after
_MOST_BYTES = 2**40  # of the first record; more is no length


def begins(start: bytes) -> bool:
    """Returns whether a file may start so: nothing but the length of a record tells."""
    return len(start) >= 12 and struct.unpack_from("<Q", start)[0] < _MOST_BYTES


def scan(path: str, file: BinaryIO, total: int) -> Iterator[tuple[int, str]]:
    """Yields (bytes done, line of the index) for each record."""
    at = 0
    while at < total:
        head = os.pread(file.fileno(), 12, at)
        size = _AROUND + struct.unpack_from("<Q", head)[0] if len(head) == 12 else total
        if at + size > total:
            raise ValueError(
                f"{path!r} must be a whole TFRecord file, but the record at byte {at} does not "
                f"end within its {total} bytes: cut short or damaged."
            )
        yield at, f"{at} {size}\n"
        at += size


def misfit(file: BinaryIO, total: int, table: NDArray[np.int64], spots: list[int]) -> str | None:
    """Returns how the (offset, size) of an index do not fit the file, reading some records."""
    offsets, sizes = table[:, 0], table[:, 1]
    ends = offsets + sizes
    if offsets[0] != 0 or (offsets[1:] != ends[:-1]).any():
        return "its records do not follow each other"
    if ends[-1] != total:
        return f"its records end at byte {ends[-1]} of {total}"
    for i in spots:
        head = os.pread(file.fileno(), 8, int(offsets[i]))
        if struct.unpack("<Q", head)[0] + _AROUND != sizes[i]:
            return f"at byte {offsets[i]} there is no record of {sizes[i]} bytes"
    return None


def features(path: str, fields: Any) -> tuple[str, str]:
    """Returns the names of image and label, by what the first record has."""
    have = _types_of_features(path)
    for image, label in [tuple(fields)] if fields else USUAL_FIELDS:
        if have.get(image) == "bytes" and have.get(label) == "int64":
            return image, label
    listed = ", ".join(f"{name} ({type_})" for name, type_ in sorted(have.items())) or "none"
    wanted = f"{fields!r}" if fields else " or ".join(map(repr, USUAL_FIELDS))
    raise ValueError(
        f"{path!r} must have features {wanted}, an image in bytes and a label in int64, got "
        f"{listed}. find_source(…, fields=…) takes their names."
    )


def sample(record: bytes, fields: tuple[str, str]) -> tuple[bytes, int | None]:
    """Returns the encoded image and the label of a record; None for a wrong label."""
    try:
        found = _example(record[12:-4])
        image, label = (found.get(name, (0, b"")) for name in fields)
        return image[1], _first_integer(label[1]) if label[0] == 3 else None
    except (LookupError, ValueError):
        return b"", None


def _types_of_features(path: str) -> dict[str, str]:
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", os.pread(file.fileno(), 8, 0))
        record = os.pread(file.fileno(), min(size, os.path.getsize(path)), 12)
    try:
        return {
            name: {1: "bytes", 2: "float", 3: "int64"}.get(type_, "nothing")
            for name, (type_, _) in _example(record).items()
        }
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path!r} must hold tf.train.Example records, got another.") from error


def _example(record: bytes) -> dict[str, tuple[int, bytes]]:
    """Returns the type and the first value of each feature of a serialised tf.train.Example.

    Example: features in field 1; these: map entries in field 1, of a name in field 1 and a
    feature in field 2; this: a list of bytes, floats or integers in field 1, 2 or 3.
    """
    features = {}
    for _, entries in _messages(record, 1):
        for _, entry in _messages(entries, 1):
            parts = dict(_messages(entry))
            type_, values = next(_messages(parts.get(2, b"")), (0, b""))
            value = next(_messages(values, 1), (0, b""))[1] if type_ == 1 else values
            features[parts[1].decode()] = (type_, value)
    return features


def _messages(message: bytes, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields (number, content) of the length-delimited fields of a protobuf message."""
    for number, content in _protobuf.fields(message):
        if not isinstance(content, bytes):
            raise ValueError(f"an integer in field {number}")
        if only in (None, number):
            yield number, content


def _first_integer(values: bytes) -> int | None:
    """Returns the integer of a serialised Int64List of one, packed or not, else None."""
    packed = dict(_messages(values, 1)).get(1) if values[:1] == b"\x0a" else values[1:]
    if not packed or sum(byte < 0x80 for byte in packed) != 1:
        return None
    number = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(packed))
    return number - 2**64 if number >= 2**63 else number
