"""Recognises shards that are compressed as a whole, whatever their name: DALI seeks in them."""

from __future__ import annotations

import zlib
from collections.abc import Callable

__all__ = ["compression"]

_MAGIC = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
}


def compression(start: bytes, begins: Callable[[bytes], bool]) -> str | None:
    """Returns the name of the compression of a file that starts so, or None.

    `begins` tells whether what is in it begins as it should. For a TFRecord begins with the length
    of a record, which may look like the two bytes of gzip or zlib.
    """
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return name
    try:
        inside = zlib.decompressobj(wbits=47).decompress(start)  # 47: of gzip or zlib
    except zlib.error:
        return None
    if not begins(inside[:512]):
        return None
    return "gzip" if start.startswith(b"\x1f\x8b") else "zlib"
