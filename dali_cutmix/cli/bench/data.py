"""Images to measure on: a folder of one's own, or generated ones of the sizes of ImageNet's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from dali_cutmix.data.cache import cache_folder

__all__ = ["generated"]

_IMAGES_A_CLASS = 20
_GRAIN = 17.0  # standard deviation; with it a file has the 110 kB of ImageNet's
_VERSION = 1  # of what is generated


def generated(count: int, advance: Callable[[], None] = lambda: None) -> str:
    """Returns an ImageFolder of `count` JPEGs like ImageNet's, made on the first call and kept.

    They are parts of the shipped photographs, about 500 x 375 pixels, one in four upright, with
    some grain, quality 90: 110 kB on average, as in ImageNet. 20 a class. They lie in the user's
    cache folder, or, where that cannot be written, in a temporary folder.

    Args:
        advance: called after each image.
    """
    name = f"bench-images-{_VERSION}-{count}"
    try:
        home = cache_folder()
    except OSError:
        home = tempfile.gettempdir()
    folder = os.path.join(home, name)
    if os.path.isdir(folder):
        return folder
    unfinished = tempfile.mkdtemp(prefix=f"{name}.", dir=home)
    try:
        _make(Path(unfinished), count, advance)
        try:
            os.rename(unfinished, folder)
        except OSError:  # another process was first
            if not os.path.isdir(folder):
                raise
        return folder
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _make(root: Path, count: int, advance: Callable[[], None]) -> None:
    photos = []
    for file in sorted(resources.files("dali_cutmix").joinpath("photos").iterdir(), key=str):
        if file.name.endswith(".jpg"):
            with file.open("rb") as opened:
                photos.append(Image.open(opened).convert("RGB"))
    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"class{i // _IMAGES_A_CLASS:04d}"
        folder.mkdir(exist_ok=True)
        _photo_like(rng, photos[i % len(photos)]).save(folder / f"{i:06d}.jpg", quality=90)
        advance()


def _photo_like(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    long = int(500 * rng.uniform(0.8, 1.2))
    short = int(375 * rng.uniform(0.8, 1.2))
    width, height = (long, short) if rng.random() < 0.75 else (short, long)
    scale = rng.uniform(0.6, 1) * min(photo.width / width, photo.height / height)
    part = (int(width * scale), int(height * scale))
    x = int(rng.integers(photo.width - part[0] + 1))
    y = int(rng.integers(photo.height - part[1] + 1))
    box = (x, y, x + part[0], y + part[1])
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC, box), np.float32)
    grain = rng.normal(0, _GRAIN, (height, width, 1)).astype(np.float32)
    return Image.fromarray((pixels + grain).round().clip(0, 255).astype(np.uint8))
