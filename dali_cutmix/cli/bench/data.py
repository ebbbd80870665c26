"""Generated data to measure on, kept in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from dali_cutmix.cli.shapes import write_shapes, write_solids
from dali_cutmix.data.cache import cache_folder

__all__ = ["generated", "generated_shapes", "generated_solids", "kept"]

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
    return kept(f"bench-images-{_VERSION}-{count}", lambda root: _make(root, count, advance))


def generated_shapes(count: int, advance: Callable[[], None] = lambda: None) -> str:
    """Returns a folder with `count` images of shapes, 480 x 640 pixels, made on the first call.

    ``images`` holds them, and annotations.json, as COCO has it; ``masks`` a mask of each.
    """

    def make(root: Path) -> None:
        size = (480, 640)
        write_shapes(
            root / "images", masks=root / "masks", images=count, size=size, advance=advance
        )

    return kept(f"bench-shapes-{_VERSION}-{count}", make)


def generated_solids(count: int, side: int, advance: Callable[[], None] = lambda: None) -> str:
    """Returns a folder with `count` volumes of such sides, ``images``, and their ``masks``."""

    def make(root: Path) -> None:
        write_solids(root, volumes=count, shape=(side, side, side), advance=advance)

    return kept(f"bench-volumes-{_VERSION}-{count}-{side}", make)


def kept(name: str, make: Callable[[Path], None]) -> str:
    """Returns a folder of the user's cache, which is made by `make` the first time.

    Where the cache cannot be written it is in the folder for temporary files.
    """
    try:
        home = cache_folder()
    except OSError:
        home = tempfile.gettempdir()
    folder = os.path.join(home, name)
    if os.path.isdir(folder):
        return folder
    unfinished = tempfile.mkdtemp(prefix=f"{name}.", dir=home)
    try:
        make(Path(unfinished))
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
