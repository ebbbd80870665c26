"""WebDataset: tar files in which a sample is the files of one name, 0001.jpg and 0001.cls.

As `tfrecords` and `recordio` it knows how a file begins (`begins`), the lines of its index
(`scan`), how an index does not fit it (`misfit`), and what a sample holds; `indexes` calls these.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from dali_cutmix.data.folders import IMAGE_EXTENSIONS

__all__ = ["USUAL_FIELDS", "begins", "check_components", "misfit", "read_index", "samples", "scan"]

# A sample of an index: (extension, offset, size) of each file.
Part = tuple[str, int, int]
Sample = list[Part]

_IMAGE_EXTENSIONS = ";".join(IMAGE_EXTENSIONS)
USUAL_FIELDS = (_IMAGE_EXTENSIONS, "cls")

_BLOCK = 512


def begins(start: bytes) -> bool:
    """Returns whether a file that starts so, with 512 bytes, is a tar."""
    return _header(start) is not None


def scan(path: str, file: BinaryIO, total: int) -> Iterator[tuple[int, str]]:
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


def read_index(index_path: str) -> list[Sample]:
    """Returns the samples of an index; ValueError says what is wrong with it."""
    with open(index_path, encoding="utf-8", errors="surrogateescape") as file:
        head, *lines = file.read().split("\n")
    version = re.fullmatch(r"(v1\.[12]) ([0-9]+)", head)
    if version is None:
        raise ValueError("it does not begin with v1.1 or v1.2 and a number")
    lines = [line for line in lines if line]
    if len(lines) != int(version[2]) or not lines:
        raise ValueError(f"it announces {version[2]} samples and has {len(lines)}")
    step = 4 if version[1] == "v1.2" else 3
    samples = []
    for line in lines:
        words = line.split()
        try:
            if not words or len(words) % step:
                raise ValueError(line)
            parts = zip(words[::step], words[1::step], words[2::step], strict=True)
            samples.append([(ext, int(offset), int(size)) for ext, offset, size in parts])
        except ValueError as error:
            raise ValueError(f"it has a line {line[:80]!r}") from error
    return samples


def misfit(file: BinaryIO, total: int, parts: Sequence[Part], spots: list[int]) -> str | None:
    """Returns how the files of an index do not fit the tar, reading some, and its end."""
    try:
        offsets, sizes = np.array([part[1:] for part in parts], np.int64).T
    except OverflowError:
        return "its numbers are beyond 64 bits"
    ends = offsets + (sizes + _BLOCK - 1) // _BLOCK * _BLOCK
    if (offsets % _BLOCK).any() or (offsets[1:] < ends[:-1] + _BLOCK).any() or offsets[0] < _BLOCK:
        return "its files do not follow each other in blocks of 512 bytes"
    if ends[-1] > total:
        return f"its files end at byte {ends[-1]} of {total}"
    for i in spots:
        head = _header(os.pread(file.fileno(), _BLOCK, int(offsets[i]) - _BLOCK))
        # The name and size of a file with a long name stand elsewhere.
        if head is None or not head.isreg() or head.size not in (sizes[i], 0):
            return f"at byte {offsets[i]} there is no file of {sizes[i]} bytes"
        extension = parts[i][0]
        plain = re.fullmatch(r"[\w.-]+", extension, re.ASCII) and len(head.name) < 90
        if plain and not head.name.endswith(extension):
            return f"at byte {offsets[i]} there is {head.name!r}, no .{extension}"
    return _misfit_of_end(file, total, int(ends[-1]))


def _misfit_of_end(file: BinaryIO, total: int, at: int) -> str | None:
    """Returns how the tar goes on after its last sample, if not with a block of zeros."""
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


def check_components(
    path: str, index_path: str, samples: list[Sample], fields: tuple[str, str]
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
                    f"{path!r} must have one {what} per sample, got {count} in sample {number} "
                    f"with {', '.join('.' + ext for ext in have)} ({index_path!r}, line "
                    f"{number + 1}). "
                    "find_source(…, fields=…) takes the extensions of image and label."
                )


def samples(
    file: BinaryIO, samples: list[Sample], fields: tuple[str, str]
) -> Iterator[tuple[str, bytes, int | None]]:
    """Yields (position, encoded image, label) of each sample; None for a wrong label."""
    images, labels = (set(names.lower().split(";")) for names in fields)
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


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _sample_name(name: str) -> tuple[str, str]:
    """Returns the name of the sample, "" for hidden files, and the extension of a file in a tar."""
    folder, _, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not dot:
        return name, name  # as DALI has it
    return (f"{folder}/{stem}" if folder else stem) if stem else "", extension
