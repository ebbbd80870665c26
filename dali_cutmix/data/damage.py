"""What is wrong with one encoded image: `verify_image` decodes it strictly and says.

DALI's decoders, and Pillow, pass many JPEGs whose middle is damaged: libjpeg goes on after a
warning, with wrong pixels. Here such a warning is a problem. Other formats, and JPEGs of unusual
kinds, are decoded by DALI too, as the loaders do: whole kinds of them it does not decode, or to
other pixels than are in the file. What a network is trained on all the same, such as a grayscale or
a rotated image, is a note. What is right depends on what the loaders decode to, see `PixelFormat`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dali_cutmix.data.decoding import OtherBands, decoded
from dali_cutmix.data.folders import FORMATS
from dali_cutmix.data.pixel_format import RGB8, PixelFormat

__all__ = [
    "KINDS",
    "MAX_PIXELS",
    "PROBLEMS",
    "Verdict",
    "size_of",
    "unreadable_files",
    "verify_image",
]

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
    "bands": "has other bands than are read",
    "not finite": "has values that are no numbers, NaN or infinite",
    "other pixels": "is decoded by DALI to other pixels than are in it",
}
# What is wrong with a kind of files, not with one.
KINDS = ("wrong type", "depth", "bands", "other pixels")

_UNUSUAL_CHROMA = ("", "")
_BY_DALI_ALONE = "decoded by DALI alone"
_BIG = (b"+\0", b"\0+")  # of a BigTIFF
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of a TIFF, and the types of their values
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _BANDS, _EXTRA, _TYPE = 256, 257, 258, 262, 277, 338, 339
_PARTS = ((273, 279), (324, 325))  # starts and lengths, of strips or tiles
_READ = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _BANDS, _EXTRA, _TYPE, *_PARTS[0], *_PARTS[1]}
_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_FLOAT = 3  # as _TYPE
_Tags = dict[int, tuple[int, ...]]
_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError)  # of Pillow
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF's orientations
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of a frame; the others are tables
# Baseline, extended, progressive; all Huffman coded, of 8 bits.
_USUAL_FRAMES = ((0xC0, 8), (0xC1, 8), (0xC2, 8))
_LOSSLESS = (0xC3, 8)


class Verdict(NamedTuple):
    """What was found: a key of `PROBLEMS` or None, the decoder's words, and notes."""

    problem: str | None
    detail: str = ""
    notes: tuple[str, ...] = ()


def verify_image(data: bytes, *, max_pixels: int = MAX_PIXELS, to: PixelFormat = RGB8) -> Verdict:
    """Returns what is wrong with an encoded image, or unusual about it.

    JPEGs are decoded by libjpeg-turbo, any warning of which is a problem, and by Pillow; others,
    and JPEGs of unusual kinds, by Pillow and DALI, whose pixels may differ by one level in the
    mean. A change that leaves a valid file, such as another Huffman code of the same length, cannot
    be seen by any decoder.

    Args:
        max_pixels: images with more are a problem.
        to: what the image is decoded to. Other bands than that are a problem, but for transparency
            where there are 1 or 3 channels. For uint8 DALI keeps the upper 8 of 16 bits, so that
            values which fill less than 14 are a problem, and so are floats. TIFFs that Pillow does
            not read, of many bands or of colours as floats, are judged by their tags and DALI
            alone, unless `to` is the default, of which they are none.

    >>> verify_image(b"")
    Verdict(problem='empty', detail='', notes=())
    """
    if not data:
        return Verdict("empty")
    if to.as_in_file and data.startswith(b"\xff\xd8"):
        return Verdict("bands", f"a JPEG, where {to.channels} are read")
    if to.channels > 4 and data[:4] in _TIFF:  # which Pillow does not read, and logs an error of
        return _verdict_of_tiff(data, max_pixels, to)
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
            if usual:
                return Verdict(None, "", notes)
            return _verdict_of_kind(data, image, to, notes)
    except Image.DecompressionBombError as error:
        return Verdict("too large", str(error))
    except UnidentifiedImageError:
        if to != RGB8 and data[:4] in _TIFF:
            return _verdict_of_tiff(data, max_pixels, to)
        return Verdict(*_unidentified(data))
    except _ERRORS as error:
        return Verdict(_problem_of(str(error)), str(error) or type(error).__name__)


def size_of(data: bytes, to: PixelFormat = RGB8) -> tuple[int, int]:
    """Returns (height, width) of a good image as DALI decodes it, turned where EXIF says so."""
    with suppress(UnidentifiedImageError), Image.open(io.BytesIO(data)) as image:
        if image.format in ("JPEG", "MPO"):
            sides = image.height, image.width
            return sides[::-1] if _orientation(image) in _ON_ITS_SIDE else sides
    height, width, *_ = decoded(data, to).shape
    return height, width


def _orientation(image: Image.Image) -> int | None:
    """Returns EXIF's orientation, 1 where there is none, None where it cannot be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # the tag is damaged, the pixels need not be
        return None


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


def _verdict_of_kind(
    data: bytes, image: Image.Image, to: PixelFormat, notes: tuple[str, ...]
) -> Verdict:
    """Returns what DALI makes of a whole image that is not in it, or does not make of it."""
    if image.mode == "F" and to.read_as == "uint8":
        return Verdict("depth", "float values", notes)
    tags = _tags(data) if data[:4] in _TIFF else {}
    if problem := _other_bands(tags, len(image.getbands()), to):
        return Verdict(*problem, notes)
    try:
        pixels = decoded(data, to)
    except OtherBands:
        return Verdict("bands", f"not {to.channels} to DALI", notes)
    except ValueError as error:
        return Verdict("wrong type", str(error), notes)
    if not np.isfinite(pixels).all():
        return Verdict("not finite", "", notes)
    values = np.asarray(image)
    if values.dtype.itemsize > 1 and to.read_as == "uint8":
        top = int(values.max())
        if 0 < top < 2**14:
            return Verdict("depth", f"values up to {top} of {2**16 - 1}", notes)
    if to.as_in_file and len(image.getbands()) != to.channels:
        return Verdict(None, "", (*notes, _BY_DALI_ALONE))  # Pillow leaves bands out
    for turned in (ImageOps.exif_transpose(image), image):
        expected, white = _in_format(turned, to)
        if expected.shape == pixels.shape:
            scale = np.float32(white / to.white)
            if image.mode == "F":  # as they are, in units of their own
                scale = np.float32(1)
            apart = float(np.abs(pixels * scale - expected).mean()) * 255 / white
            if apart > 1:
                return Verdict("other pixels", f"{apart:.0f} of 255 apart in the mean", notes)
            return Verdict(None, "", notes)
    shapes = f"{pixels.shape[:2]} where {(image.height, image.width)} are in it"
    return Verdict("other pixels", shapes, notes)


def _in_format(image: Image.Image, to: PixelFormat) -> tuple[NDArray[np.float32], float]:
    """Returns the pixels, (H, W, C), of 16 bits and floats too, and the largest that can be."""
    values = np.asarray(image)
    if values.ndim == 2 and values.dtype.itemsize > 1:
        gray = values[..., None].astype(np.float32)
        white = float(np.ptp(gray)) or 1.0 if image.mode == "F" else 65535.0
        return np.repeat(gray, 3, axis=2) if to.channels == 3 else gray, white
    if not to.as_in_file:
        values = np.asarray(image.convert("RGB" if to.channels == 3 else "L"))
    return values.reshape(*values.shape[:2], -1).astype(np.float32), 255.0


def _verdict_of_tiff(data: bytes, max_pixels: int, to: PixelFormat) -> Verdict:
    """Returns what is wrong with a TIFF that Pillow does not read, by its tags and DALI."""
    notes = (_BY_DALI_ALONE,)
    try:
        tags = _tags(data)
    except struct.error as error:
        return Verdict("truncated", f"the tags of a TIFF: {error}")
    if _WIDTH not in tags or _HEIGHT not in tags:
        return Verdict("damaged", "a TIFF whose tags have no size")
    sides = tags[_HEIGHT][0], tags[_WIDTH][0]
    if sides[0] * sides[1] > max_pixels:
        return Verdict("too large", f"{sides[1]} x {sides[0]} pixels")
    for starts, lengths in _PARTS:
        parts = zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
        if (end := max(map(sum, parts), default=0)) > len(data):
            return Verdict("truncated", f"{len(data)} bytes of {end}")
    if problem := _other_bands(tags, 0, to):
        return Verdict(*problem)
    if _FLOAT in tags.get(_TYPE, ()) and to.read_as == "uint8":
        return Verdict("depth", "float values")
    try:
        pixels = decoded(data, to._replace(read_as="float32"))
    except OtherBands:
        return Verdict("bands", f"not {to.channels} to DALI")
    except ValueError as error:
        return Verdict("wrong type", str(error))
    if not np.isfinite(pixels).all():
        return Verdict("not finite")
    if max(tags.get(_BITS, (1,))) > 8 and to.read_as == "uint8":
        top = round(float(pixels.max()) * (2**16 - 1))
        if top < 2**14:
            return Verdict("depth", f"values up to {top} of {2**16 - 1}")
    if sorted(pixels.shape[:2]) != sorted(sides):
        return Verdict("other pixels", f"{pixels.shape[:2]} where {sides} are in it")
    return Verdict(None, "", notes)


def _tags(data: bytes) -> _Tags:
    """Returns those tags of the first image of a TIFF that are asked for here.

    Raises:
        struct.error: they go beyond its end.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in _BIG
    offset, size = ("Q", 8) if big else ("I", 4)
    (at,) = struct.unpack_from(order + offset, data, size)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    tags = {}
    for _ in range(count):
        tag, kind, length = struct.unpack_from(f"{order}HH{offset}", data, at)
        place, at = at + 4 + size, at + 4 + 2 * size
        if tag in _READ and kind in _CODES:
            form = f"{order}{length}{_CODES[kind]}"
            if struct.calcsize(form) > size:  # elsewhere, and here where
                (place,) = struct.unpack_from(order + offset, data, place)
            tags[tag] = struct.unpack_from(form, data, place)
    struct.unpack_from(order + offset, data, at)  # of the next image
    return tags


def _other_bands(tags: _Tags, bands: int, to: PixelFormat) -> tuple[str, str] | None:
    """Returns in how far an image has other bands than are read.

    Args:
        tags: of a TIFF, else empty.
        bands: as Pillow has them; of a TIFF its tags count.
    """
    (bands, *_) = tags.get(_BANDS, (bands,))
    if to.as_in_file:
        return ("bands", f"{bands}, not {to.channels}") if bands != to.channels else None
    shown = _bands(tags)
    return ("bands", f"{shown} bands") if shown > to.channels else None


def _bands(tags: _Tags) -> int:
    """Returns the bands of a TIFF beside those that say how transparent it is.

    Or 0 where there are none beyond gray or colours, or it is no TIFF.
    """
    samples, photometric = (tags.get(tag, (-1,))[0] for tag in (_BANDS, _PHOTOMETRIC))
    colors = {0: 1, 1: 1, 2: 3}.get(photometric)
    if colors is None or samples <= colors:
        return 0
    extra = tags.get(_EXTRA, ())  # 1 and 2 are alpha, 0 is not said
    transparent = any(kind in (1, 2) for kind in extra) or (colors == 3 and samples == 4)
    return samples - transparent if samples - transparent > colors else 0


def unreadable_files(
    paths: Iterable[Any], *, to: PixelFormat = RGB8, limit: int | None = None
) -> list[Any]:
    """Returns the files that are no image, cut short, or of a kind that DALI does not decode.

    Opens every file, until `limit` are found, and reads its header; of JPEGs damage behind it is
    not seen. Where channels are the bands of a file, all of it is decoded.
    """
    return list(islice((path for path in paths if _is_unreadable(path, to)), limit))


def _is_unreadable(path: Any, to: PixelFormat) -> bool:
    try:
        if not to.as_in_file and (form := _format(path)) and form[0] in ("JPEG", "MPO"):
            # Of four channels DALI may read other colours.
            return form[1] == "CMYK" and verify_image(_bytes_of(path), to=to).problem is not None
        problem = verify_image(_bytes_of(path), to=to).problem
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return True
    if problem == "bands":  # where 1 or 3 are read DALI leaves them out
        return to.as_in_file
    return problem not in (None, "too large", "depth", "other pixels", "not finite")


def _format(path: Any) -> tuple[str | None, str] | None:
    """Returns format and mode by the header; None where Pillow knows none."""
    try:
        with Image.open(path) as image:
            image.verify()
            return image.format, image.mode
    except UnidentifiedImageError:
        return None


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
    if data[:4] in _TIFF:
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
    orientation = _orientation(image)
    if orientation is None:
        notes.append("EXIF unreadable")
    elif orientation not in (0, 1):
        notes.append("rotated by EXIF")
    return tuple(notes)
