"""What is wrong with one encoded image: `verify_image` decodes it strictly and says.

DALI's decoders, and Pillow, pass many JPEGs whose middle is damaged: libjpeg goes on after a
warning, with wrong pixels. Here such a warning is a problem. Other formats, and JPEGs of unusual
kinds, are decoded by DALI too, as the loaders do: whole kinds of them it does not decode, or to
other pixels than are in the file. What a network is trained on all the same, such as a grayscale or
a rotated image, is a note.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dali_cutmix.data.decoding import decoded
from dali_cutmix.data.folders import FORMATS

__all__ = ["KINDS", "MAX_PIXELS", "PROBLEMS", "Verdict", "unreadable_files", "verify_image"]

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
    "depth": "has values that 8 bits do not show",
    "bands": "has bands beyond red, green and blue",
    "other pixels": "is decoded by DALI to other pixels than are in it",
}
# What is wrong with a kind of files, not with one.
KINDS = ("wrong type", "depth", "bands", "other pixels")

_UNUSUAL_CHROMA = ("", "")
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of a frame; the others are tables
# Baseline, extended, progressive; all Huffman coded, of 8 bits.
_USUAL_FRAMES = ((0xC0, 8), (0xC1, 8), (0xC2, 8))
_LOSSLESS = (0xC3, 8)


class Verdict(NamedTuple):
    """What was found: a key of `PROBLEMS` or None, the decoder's words, and notes."""

    problem: str | None
    detail: str = ""
    notes: tuple[str, ...] = ()


def verify_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Verdict:
    """Returns what is wrong with an encoded image, or unusual about it.

    JPEGs are decoded by libjpeg-turbo, any warning of which is a problem, and by Pillow; others,
    and JPEGs of unusual kinds, by Pillow and DALI, whose pixels may differ by one level in the
    mean. Of 16 bits DALI keeps the upper 8, so that values which fill less than 14 are a problem,
    and so are floats, and bands beyond three that are no transparency. A change that leaves a valid
    file, such as another Huffman code of the same length, cannot be seen by any decoder.

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
            usual = False
            if image.format in ("JPEG", "MPO"):
                frame = _frame(data)
                usual = frame is None or frame in _USUAL_FRAMES
                problem = _problem_of_jpeg(data) if usual else None
                if problem == _UNUSUAL_CHROMA:
                    notes = (*notes, "unusual chroma, decoded by Pillow alone")
                elif problem is not None:
                    return Verdict(*problem, notes)
                usual = usual and image.mode != "CMYK"
                if usual:
                    image.draft("L" if image.mode == "L" else None, (1, 1))  # all codes, few pixels
                elif frame is not None and not (
                    frame in (*_USUAL_FRAMES, _LOSSLESS) and _decoded_by_pillow(image)
                ):
                    return Verdict(
                        "wrong type", f"a JPEG with frame 0x{frame[0]:X} and {frame[1]} bits", notes
                    )
            image.load()
            if not usual and (problem := _problem_of_kind(data, image)):
                return Verdict(*problem, notes)
    except Image.DecompressionBombError as error:
        return Verdict("too large", str(error))
    except UnidentifiedImageError:
        return Verdict(*_unidentified(data))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError) as error:
        return Verdict(_problem_of(str(error)), str(error) or type(error).__name__)
    return Verdict(None, "", notes)


def _problem_of_jpeg(data: bytes) -> tuple[str, str] | None:
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


def _decoded_by_pillow(image: Image.Image) -> bool:
    try:
        image.load()
    except OSError:
        return False
    return True


def _problem_of_kind(data: bytes, image: Image.Image) -> tuple[str, str] | None:
    """Returns what DALI makes of a whole image that is not in it, or does not make of it."""
    if image.mode == "F":
        return "depth", "float values"
    if (bands := _bands(image)) > 3:
        return "bands", f"{bands} bands"
    try:
        pixels = decoded(data)
    except ValueError as error:
        return "wrong type", str(error)
    values = np.asarray(image)
    if values.dtype.itemsize > 1:
        top = int(values.max())
        if top < 2**14:
            return "depth", f"values up to {top} of {2**16 - 1}"
    for turned in (ImageOps.exif_transpose(image), image):
        expected = _in_8_bits(turned)
        if expected.shape == pixels.shape:
            apart = float(np.abs(pixels.astype(np.float32) - expected).mean())
            if apart > 1:
                return "other pixels", f"{apart:.0f} of 255 apart in the mean"
            return None
    return "other pixels", f"{pixels.shape[:2]} where {(image.height, image.width)} are in it"


def _bands(image: Image.Image) -> int:
    """Returns the bands of a TIFF beside those that say how transparent it is; 0 of others."""
    tags: Any = getattr(image, "tag_v2", {})
    samples, colors = int(tags.get(277, 0)), {0: 1, 1: 1, 2: 3}.get(tags.get(262))  # photometric
    extra = tags.get(338, ())  # ExtraSamples: 1 and 2 are alpha, 0 is not said
    extra = extra if isinstance(extra, tuple) else (extra,)
    if colors is None or samples <= colors:
        return 0
    transparent = any(kind in (1, 2) for kind in extra) or (colors == 3 and samples == 4)
    return samples - transparent if samples - transparent > colors else 0


def _in_8_bits(image: Image.Image) -> NDArray[np.float32]:
    """Returns the pixels as RGB in [0, 255], (H, W, 3), of 16 bits too."""
    values = np.asarray(image)
    if values.ndim == 2 and values.dtype.itemsize > 1:
        return np.repeat(values[..., None] * np.float32(255 / 65535), 3, axis=2)
    return np.asarray(image.convert("RGB"), np.float32)


def unreadable_files(paths: Iterable[Any]) -> list[Any]:
    """Returns the files that are no image, cut short, or of a kind that DALI does not decode.

    Opens every file and reads its header; of JPEGs damage behind it is not seen.
    """
    bad = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.verify()
                wrong = image.format not in FORMATS
                if not wrong and image.format not in ("JPEG", "MPO"):
                    wrong = verify_image(_bytes_of(path)).problem in ("wrong type", "damaged")
            if wrong:
                bad.append(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            bad.append(path)
    return bad


def _bytes_of(path: Any) -> bytes:
    if hasattr(path, "getvalue"):
        return bytes(path.getvalue())
    with open(path, "rb") as file:
        return file.read()


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
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "wrong type", "a TIFF that Pillow does not know, so that it cannot be verified"
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
