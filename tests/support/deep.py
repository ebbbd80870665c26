"""Files that Pillow does not write: of many bands, 16 bits a colour, or floats."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def tiff(
    pixels: Array, *, photometric: int = 1, extra: int = 0, planar: bool = False, turn: int = 1
) -> bytes:
    """A TIFF of (H, W, C) unsigned integers or floats, uncompressed, in one strip.

    Args:
        photometric: 1: the first band is gray; 2: the first three are colours.
        extra: what the other bands are: 0: not said, 2: transparency.
        planar: one band after the other, in a strip each.
        turn: EXIF's orientation.
    """
    height, width, bands = pixels.shape
    pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    strips = [pixels[..., k].tobytes() for k in range(bands)] if planar else [pixels.tobytes()]
    starts = [8 + sum(map(len, strips[:k])) for k in range(len(strips))]
    more = bands - (1 if photometric == 1 else 3)
    size = pixels.dtype.itemsize
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * size] * bands),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", starts),
        274: ("H", [turn]),
        277: ("H", [bands]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        **({338: ("H", [extra] * more)} if more else {}),
        339: ("H", [3 if pixels.dtype.kind == "f" else 1] * bands),
    }
    body = b"".join(strips)
    entries = b""
    for tag, (kind, values) in tags.items():
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if len(packed) > 4:  # elsewhere, and here where
            place = struct.pack("<I", 8 + len(body))
            body += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + place
    start = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    return start + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def png(pixels: Array) -> bytes:
    """A PNG of (H, W, C) uint8 or uint16: gray, gray and alpha, RGB or RGBA."""
    height, width, bands = pixels.shape
    size = pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    header = struct.pack(">IIBBBBB", width, height, 8 * size, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
