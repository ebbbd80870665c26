"""The fields of a message in the wire format of Google's protocol buffers."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["field", "fields"]


def fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yields the number of each field, and its bytes, or for a varint its int.

    Raises:
        IndexError, ValueError: it is cut short, or has a field of fixed length.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire = divmod(varint(), 8)
        if wire not in (0, 2):
            raise ValueError(f"wire type {wire}")
        value = varint()
        if wire == 0:
            yield number, value
            continue
        if at + value > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + value]
        at += value


def field(number: int, value: bytes | int) -> bytes:
    """Returns a field as `fields` reads it."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded, value = encoded + bytes([value & 0x7F | 0x80]), value >> 7
    return encoded + bytes([value])
