"""What is wrong with one encoded image: `verify_image` decodes it strictly and says.

DALI's decoders, and Pillow, pass many JPEGs whose middle is damaged: libjpeg goes on after a
warning, with wrong pixels. Here such a warning is a problem. What a network is trained on all the
same, such as a grayscale or a rotated image, is a note.
"""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

import simplejpeg
from PIL import Image, UnidentifiedImageError

from dali_cutmix.data.folders import FORMATS

__all__ = ["MAX_PIXELS", "PROBLEMS", "Verdict", "verify_image"]

# Twice what Pillow warns of; ImageNet's largest image has 61 million.
MAX_PIXELS = 178_956_970

PROBLEMS = {
    "unreadable": "cannot be opened or read",
    "empty": "has no bytes",
    "no image": "is of no known image format",
    "wrong type": "is an image of a format that DALI does not decode",
    "too large": "has more pixels than allowed",
    "truncated": "ends too early",
    "damaged": "has wrong bytes in it",
}

_UNUSUAL_CHROMA = ("", "")
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of a frame; the others are tables
_DECODED_SOF = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; all Huffman coded


class Verdict(NamedTuple):
    """What was found: a key of `PROBLEMS` or None, the decoder's words, and notes."""

    problem: str | None
    detail: str = ""
    notes: tuple[str, ...] = ()


def verify_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Verdict:
    """Returns what is wrong with an encoded image, or unusual about it.

    JPEGs are decoded by libjpeg-turbo, any warning of which is a problem, and by Pillow; others by
    Pillow alone. A change that leaves a valid file, such as another Huffman code of the same
    length, cannot be seen by any decoder.

    >>> verify_image(b"")
    Verdict(problem='empty', detail='', notes=())
    """
    if not data:
        return Verdict("empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format not in FORMATS:
                return Verdict("wrong type", f"a {image.format}")
            if image.width * image.height > max_pixels:
                return Verdict("too large", f"{image.width} x {image.height} pixels")
            notes = _notes(image)
            if image.format in ("JPEG", "MPO"):
                problem = _problem_of_jpeg(data)
                if problem == _UNUSUAL_CHROMA:
                    notes = (*notes, "unusual chroma, decoded by Pillow alone")
                elif problem is not None:
                    return Verdict(*problem, notes)
                image.draft("L" if image.mode == "L" else None, (1, 1))  # all codes, few pixels
            image.load()
    except Image.DecompressionBombError as error:
        return Verdict("too large", str(error))
    except UnidentifiedImageError:
        return Verdict(*_unidentified(data))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError) as error:
        return Verdict(_problem_of(str(error)), str(error) or type(error).__name__)
    return Verdict(None, "", notes)


def _problem_of_jpeg(data: bytes) -> tuple[str, str] | None:
    frame = _frame(data)
    if frame is not None and (frame[0] not in _DECODED_SOF or frame[1] != 8):
        return "wrong type", f"a JPEG with frame 0x{frame[0]:X} and {frame[1]} bits"
    try:
        _, _, space, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        colors = "CMYK" if space in ("CMYK", "YCCK") else "GRAY"
        # An eighth of the sides: all codes are read, and few pixels made.
        simplejpeg.decode_jpeg(data, colors, fastdct=True, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        if "JFIF revision" in str(error):  # read all the same, and right
            return None
        if "determine subsampling" in str(error):  # valid, but not to TurboJPEG
            return _UNUSUAL_CHROMA
        return _problem_of(str(error)), str(error)
    return None


def _frame(data: bytes) -> tuple[int, int] | None:
    """Returns marker and bits per sample of a JPEG's frame, where its header is complete."""
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SOF:
            return marker, data[at + 4]
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _unidentified(data: bytes) -> tuple[str, str]:
    for start, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG")):
        if data.startswith(start):
            return "damaged", f"the header of a {name} that goes wrong or ends"
    return "no image", f"begins with {data[:8]!r}"


def _problem_of(words: str) -> str:
    early = ("truncated", "premature end of jpeg", "unexpected end", "not enough", "empty input")
    return "truncated" if any(part in words.lower() for part in early) else "damaged"


def _notes(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.mode in ("1", "L", "LA", "I", "F", "I;16", "I;16B"):
        notes.append("grayscale")
    if image.mode == "CMYK":
        notes.append("CMYK")
    if image.mode in ("I", "F", "I;16", "I;16B"):
        notes.append("more than 8 bits")
    if image.mode in ("P", "PA"):
        notes.append("palette")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        notes.append("transparent")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.append("animated")
    try:
        if image.getexif().get(0x0112, 1) not in (0, 1):
            notes.append("rotated by EXIF")
    except Exception:  # the tag is damaged, the pixels need not be
        notes.append("EXIF unreadable")
    return tuple(notes)
