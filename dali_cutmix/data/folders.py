"""ImageFolder data sets: one folder a class, classes in sorted order.

As torchvision's ImageFolder has them, but for folders inside a class folder: DALI does not enter
them, torchvision does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

__all__ = [
    "FORMATS",
    "IMAGE_PATTERNS",
    "class_entries",
    "class_names",
    "image_files",
    "is_image_name",
    "unreadable_files",
]


IMAGE_PATTERNS = tuple(
    f"*.{ext}" for ext in "jpg jpeg png bmp tif tiff pnm ppm pgm pbm jp2 webp".split()
)
_ENDINGS = tuple(pattern[1:] for pattern in IMAGE_PATTERNS)
FORMATS = {"JPEG", "MPO", "PNG", "BMP", "TIFF", "PPM", "JPEG2000", "WEBP"}


def class_names(root: str | os.PathLike[str]) -> list[str]:
    """Returns the names of the class folders in `root`, sorted; label k belongs to the k-th.

    Raises:
        FileNotFoundError: `root` does not exist, or it or one of its classes holds no image.
        NotADirectoryError: `root` is a file.
    """
    root = os.fspath(root)
    if not os.path.exists(root):
        raise FileNotFoundError(f"`source` must be an existing folder, got {root!r}.")
    if not os.path.isdir(root):
        raise NotADirectoryError(f"`source` must be a folder, got the file {root!r}.")
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        raise FileNotFoundError(
            f"`source` must hold one folder of images a class, got {root!r} without folders."
        )
    empty = [name for name in names if next(_images_in(os.path.join(root, name)), None) is None]
    if empty:
        listed = ", ".join(repr(name) for name in empty[:5]) + (", …" if len(empty) > 5 else "")
        raise FileNotFoundError(
            f"`source` must hold images in every class folder, got {root!r} with "
            f"{len(empty)} of {len(names)} empty: {listed}. Remove the empty folders."
        )
    return names


def image_files(root: str | os.PathLike[str]) -> Iterator[str]:
    """Yields the path of every image, class by class."""
    for name in class_names(root):
        yield from sorted(_images_in(os.path.join(root, name)))


def class_entries(
    root: str | os.PathLike[str],
) -> Iterator[tuple[int, str, list[tuple[str, bool]]]]:
    """Yields (label, name, what is inside) of every class folder: sorted (name, is a folder)."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    for label, name in enumerate(names):
        with os.scandir(os.path.join(root, name)) as entries:
            yield label, name, sorted((entry.name, entry.is_dir()) for entry in entries)


def is_image_name(name: str) -> bool:
    """Returns whether a file of this name is read as an image."""
    return name.lower().endswith(_ENDINGS)


def unreadable_files(paths: Iterable[str]) -> list[str]:
    """Returns the files that are no image, of a format that DALI does not decode, or cut short.

    Opens every file and reads its header; only some formats show damage behind it.
    """
    from PIL import Image  # a graph does without

    bad = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.verify()
                if image.format not in FORMATS:
                    bad.append(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            bad.append(path)
    return bad


def _images_in(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image_name(entry.name):
                yield entry.path
