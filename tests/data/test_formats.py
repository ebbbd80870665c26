"""Odd but valid files of every format: they arrive as they are, or are named.

What is defined for a kind: 16 bits are scaled to 8, transparency is left out, a palette is looked
up, CMYK is converted, and EXIF's orientation is applied, as Pillow does all of it.
"""

from __future__ import annotations

import io
import itertools
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import dali_cutmix as dcm
from dali_cutmix.data import damage
from dali_cutmix.data.decoding import decoded
from tests.support.deep import tiff

Array = np.ndarray[Any, Any]


def ramp(height: int, width: int) -> Array:
    """Smooth colours, of which JPEG and WebP keep most, that no flip or exchange maps to itself."""
    y, x = np.mgrid[:height, :width]
    rgb = [
        x * 200 / width + 20,
        y * 150 / height + 60,
        250 - (x + 2 * y) * 200 / (width + 2 * height),
    ]
    return np.stack(rgb, axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def in_mode(mode: str, height: int, width: int) -> Image.Image:
    colours = ramp(height, width)
    rgb = Image.fromarray(colours)
    deep = np.linspace(0, 65535, height * width).reshape(height, width)
    special: dict[str, Callable[[], Image.Image]] = {
        "1": lambda: Image.fromarray(colours[..., 0] > 120),
        "P": lambda: rgb.quantize(32),
        "LA": lambda: Image.merge("LA", (rgb.convert("L"), rgb.getchannel("R"))),
        "RGBA": lambda: Image.merge("RGBA", (*rgb.split(), rgb.getchannel("G"))),
        "I;16": lambda: Image.fromarray(deep.astype(np.uint16)),
        "I;16 of 12": lambda: Image.fromarray((deep / 16).astype(np.uint16)),
        "I": lambda: Image.fromarray(deep.astype(np.int32)),
        "F": lambda: Image.fromarray((deep / 65535).astype(np.float32)),
        "F of 255": lambda: Image.fromarray((deep / 257).astype(np.float32)),
    }
    return special[mode]() if mode in special else rgb.convert(mode)


SIZES = [(24, 40), (33, 17)]
MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16 of 12"],
    "TIFF": [
        "1",
        "L",
        "LA",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "I;16",
        "I;16 of 12",
        "I",
        "F",
        "F of 255",
    ],
    "BMP": ["1", "L", "P", "RGB", "RGBA"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "WEBP": ["L", "P", "RGB", "RGBA", "LA"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "PNG": [{}, {"compress_level": 0}, {"optimize": True}, {"dpi": (72, 300)}],
    "TIFF": [
        *({"compression": name} for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
        *({"compression": name} for name in ("lzma", "zstd")),
    ],
    "BMP": [{}],
    "PPM": [{}],
    "WEBP": [{"lossless": True}, {"quality": 95}, {"quality": 95, "method": 0}],
    "JPEG2000": [{}, {"irreversible": True, "quality_layers": [5]}, {"tile_size": (16, 16)}],
    "JPEG": [
        *({"quality": 95, "subsampling": chroma} for chroma in (0, 1, 2)),
        {"progressive": True},
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"comment": b"a comment"},
        {"icc_profile": b"no profile" * 40},
        {"dpi": (300, 300)},
    ],
}


def pgm_in_ascii() -> bytes:
    gray = ramp(24, 40)[..., 0]
    return ("P2\n40 24\n255\n" + " ".join(map(str, gray.ravel()))).encode()


def bmp_555() -> bytes:
    rows = ramp(24, 40)[::-1].astype(np.uint16) >> 3
    pixels = (rows[..., 0] << 10 | rows[..., 1] << 5 | rows[..., 2]).astype("<u2").tobytes()
    info = struct.pack("<IiiHHIIiiII", 40, 40, 24, 1, 16, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + info + pixels


def cmyk_without_adobe() -> bytes:
    data = encoded(in_mode("CMYK", 24, 40), "JPEG", quality=95)
    at = 2
    while data[at + 1] != 0xEE:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def tiff_of_bands(bands: int, photometric: int = 1) -> bytes:
    """A TIFF of uint8 bands that are no colours."""
    pixels = np.dstack([np.full((8, 8), 10 * k + 10, np.uint8) for k in range(bands)])
    return tiff(pixels, photometric=photometric)


def files() -> Iterator[tuple[str, bytes]]:
    for kind, modes in MODES.items():
        for mode, options, size in itertools.product(modes, OPTIONS[kind], SIZES):
            image = in_mode(mode, *size)
            try:
                yield f"{kind} {mode} {options} {size}", encoded(image, kind, **options)
            except (OSError, ValueError):  # of no such mode
                continue
    for kind, turn in itertools.product(("JPEG", "PNG", "TIFF", "WEBP"), range(1, 9)):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"{kind} turned {turn}", encoded(in_mode("RGB", 24, 40), kind, exif=exif)
    yield "PGM in ASCII", pgm_in_ascii()
    yield "BMP of 5 bits a colour", bmp_555()
    yield "CMYK JPEG without Adobe's marker", cmyk_without_adobe()
    for bands in (2, 3, 4, 8):
        yield f"TIFF of {bands} bands", tiff_of_bands(bands)
    for bands in (5, 6):
        yield f"TIFF of colours and {bands - 3} bands", tiff_of_bands(bands, 2)


def expected(data: bytes) -> Array:
    """The pixels by Pillow, RGB in [0, 255]; of 16 bits the upper 8."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        values = np.asarray(upright)
        if values.ndim == 2 and values.dtype.itemsize > 1 and values.dtype != np.bool_:
            return np.repeat(values[..., None] * (255 / 65535), 3, axis=2)
        return np.asarray(upright.convert("RGB"), float)


def test_every_file_arrives_or_is_named() -> None:
    outcome: Counter[str] = Counter()
    for name, data in files():
        verdict = damage.verify_image(data)
        outcome[verdict.problem or "arrives"] += 1
        if verdict.problem is None:
            apart = np.abs(decoded(data) - expected(data)).mean()
            assert apart <= 1, (name, apart)
        else:
            assert verdict.problem in damage.KINDS, (name, verdict)
            assert verdict.detail, name
    assert sum(outcome.values()) >= 200
    assert outcome["arrives"] > 150
    assert set(outcome) == {"arrives", *damage.KINDS}


# What is known of DALI 2.4.0: a new one that decodes them fails here.
NAMED = {
    "float TIFF": (lambda: encoded(in_mode("F of 255", 24, 40), "TIFF"), "depth"),
    "12 bits in 16": (lambda: encoded(in_mode("I;16 of 12", 24, 40), "PNG"), "depth"),
    "gray and alpha in a TIFF": (lambda: encoded(in_mode("LA", 24, 40), "TIFF"), "other pixels"),
    "int32 TIFF": (lambda: encoded(in_mode("I", 24, 40), "TIFF"), "wrong type"),
    "gray and alpha in JPEG 2000": (
        lambda: encoded(in_mode("LA", 24, 40), "JPEG2000"),
        "wrong type",
    ),
    "PGM in ASCII": (pgm_in_ascii, "wrong type"),
    "CMYK without Adobe's marker": (cmyk_without_adobe, "other pixels"),
    "four bands": (lambda: tiff_of_bands(4), "wrong type"),
    "two bands beside colours": (lambda: tiff_of_bands(5, 2), "bands"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_as_in_the_file_is_named_by_the_loaders(name: str, tmp_path: Path) -> None:
    make, problem = NAMED[name]
    data = make()
    assert damage.verify_image(data).problem == problem
    (tmp_path / "a").mkdir()
    kind = {b"II": "tif", b"\x89P": "png", b"P2": "pgm", b"\xff\xd8": "jpg"}.get(data[:2], "jp2")
    for k in range(3):
        (tmp_path / "a" / f"{k}.jpg").write_bytes(encoded(in_mode("RGB", 24, 40), "JPEG"))
    (tmp_path / "a" / f"odd.{kind}").write_bytes(data)
    options: dict[str, Any] = {"batch_size": 4, "size": 8, "resize": 8, "device": "cpu"}
    with pytest.raises(ValueError, match=rf"odd\.{kind}"):
        dcm.val_loader(tmp_path, **options)
    with (
        pytest.warns(
            UserWarning, match=rf"1 of 4 samples are left out: a/odd.{kind} \({problem}\)"
        ),
        dcm.val_loader(tmp_path, **options, on_error="skip") as loader,
    ):
        assert sum(len(labels) for _, labels in loader) == 3


def test_a_graph_that_is_wrong_is_not_called_damaged_data(photos: str) -> None:
    from nvidia.dali import fn, pipeline_def

    @pipeline_def
    def wrong(root: str) -> Any:
        encoded, labels = fn.readers.file(file_root=root, pad_last_batch=True)
        return fn.decoders.image(encoded, device="gpu"), labels

    with pytest.raises(Exception, match=r"decoders") as caught:
        dcm.Loader(wrong, root=photos, batch_size=4, num_threads=1, device_id=None)
    assert "replace or remove" not in str(caught.value)

    @pipeline_def
    def fed() -> Any:
        return fn.external_source(source=lambda: [np.zeros(3)] * 4, num_outputs=None), fn.zeros()

    with pytest.raises(ValueError, match="`pipeline` must read by one of DALI's readers"):
        dcm.Loader(fed, batch_size=4, num_threads=1, device_id=None)
