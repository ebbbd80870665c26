"""Damaged JPEGs of every kind, made from the shipped photographs."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources

from PIL import Image

KINDS = (
    *("header cut", "cut", "one bit", "bits", "spliced", "marker", "zeros", "block", "huge"),
    *("header byte", "other format", "empty", "text", "zero size"),
)


@cache
def whole_images() -> tuple[bytes, ...]:
    """JPEGs of 160 x 120: subsampled, progressive, grayscale, CMYK, with restart markers."""
    images = []
    forms: list[dict[str, object]] = [
        {"quality": 90, "subsampling": 0},
        {"quality": 75, "subsampling": 2},
        {"quality": 85, "progressive": True},
        {"quality": 85, "restart_marker_blocks": 4},
    ]
    for photo in sorted(resources.files("dali_cutmix").joinpath("photos").iterdir(), key=str):
        if photo.name.endswith(".jpg"):
            with photo.open("rb") as file:
                image = Image.open(file).convert("RGB").resize((160, 120))
            images += [encoded(image, "JPEG", **form) for form in forms]
            images += [encoded(image.convert(mode), "JPEG") for mode in ("L", "CMYK")]
    return tuple(images)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def segments(data: bytes) -> list[int]:
    """Where each part of a JPEG's header begins, and its image data."""
    places = [0]
    at = 2
    while data[at : at + 2] != b"\xff\xda":
        places.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [*places, at, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]


def corpus(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yields (kind of damage, file), each kind as often."""
    rng = random.Random(seed)
    cuts = [(data, place + step) for data in whole_images() for place in segments(data)
            for step in (-1, 0, 1, 3) if place + step > 0]  # fmt: skip
    rng.shuffle(cuts)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        if kind == "header cut":  # at every boundary of the header in turn
            data, place = cuts[number // len(KINDS) % len(cuts)]
            yield kind, data[:place]
        else:
            yield kind, DAMAGE[kind](bytearray(rng.choice(whole_images())), rng)


def _bits(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(2, 20)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _one_bit(data: bytearray, rng: random.Random) -> bytes:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _spliced(data: bytearray, rng: random.Random) -> bytes:
    other = rng.choice(whole_images())
    return bytes(data[: rng.randrange(len(data))]) + other[rng.randrange(len(other)) :]


def _marker(data: bytearray, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    data[place:place] = bytes([0xFF, rng.randrange(256)])
    return bytes(data)


def _zeros(data: bytearray, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(data)), rng.randrange(1, 300)
    data[place : place + length] = bytes(length)
    return bytes(data[: len(data)])


def _block(data: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))  # of a disk, lost
    data[start : start + 512] = bytes(min(512, len(data) - start))
    return bytes(data)


def _sized(data: bytearray, sides: tuple[int, int]) -> bytes:
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    for place, side in zip((5, 7), sides, strict=True):
        if side >= 0:
            data[frame + place : frame + place + 2] = side.to_bytes(2, "big")
    return bytes(data)


def _other_format(data: bytearray, rng: random.Random) -> bytes:
    image = Image.open(io.BytesIO(bytes(data))).convert("RGB")
    whole = encoded(image, rng.choice(["PNG", "GIF", "BMP", "WEBP", "TIFF", "ICO"]))
    return whole[: rng.choice([len(whole), rng.randrange(len(whole))])]


def _header_byte(data: bytearray, rng: random.Random) -> bytes:
    data[rng.randrange(segments(bytes(data))[-1])] = rng.randrange(256)
    return bytes(data)


DAMAGE: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "cut": lambda data, rng: bytes(data[: rng.randrange(1, len(data))]),
    "one bit": _one_bit,
    "bits": _bits,
    "spliced": _spliced,
    "marker": _marker,
    "zeros": _zeros,
    "block": _block,
    "huge": lambda data, rng: _sized(
        data, rng.choice([(65500, -1), (-1, 65500), (65500, 65500), (20000, 20000)])
    ),
    "header byte": _header_byte,
    "other format": _other_format,
    "empty": lambda data, rng: b"",  # noqa: ARG005
    "text": lambda data, rng: bytes(rng.randrange(32, 127) for _ in range(len(data) // 8)),
    "zero size": lambda data, rng: _sized(data, rng.choice([(0, -1), (-1, 0), (0, 0)])),
}
