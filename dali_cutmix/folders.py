"""ImageFolder data sets: one folder a class, classes in sorted order, as torchvision has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch

from PIL import Image

from dali_cutmix.pipelines.imagenet import IMAGE_PATTERNS

__all__ = ["class_names", "image_files", "unreadable_files"]


def class_names(root: str | os.PathLike[str]) -> list[str]:
    """Returns the names of the class folders in `root`, sorted; label k belongs to the k-th.

    Raises:
        FileNotFoundError: `root` does not exist, or it or one of its classes holds no image.
        NotADirectoryError: `root` is a file.
    """
    root = os.fspath(root)
    if not os.path.exists(root):
        raise FileNotFoundError(f"`root` must be an existing folder, got {root!r}.")
    if not os.path.isdir(root):
        raise NotADirectoryError(f"`root` must be a folder, got the file {root!r}.")
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        raise FileNotFoundError(
            f"`root` must hold one folder of images a class, got {root!r} without folders."
        )
    empty = [name for name in names if next(_images_in(os.path.join(root, name)), None) is None]
    if empty:
        listed = ", ".join(repr(name) for name in empty[:5]) + (", …" if len(empty) > 5 else "")
        raise FileNotFoundError(
            f"`root` must hold images in every class folder, got {root!r} with "
            f"{len(empty)} of {len(names)} empty: {listed}. Remove the empty folders."
        )
    return names


def image_files(root: str | os.PathLike[str]) -> Iterator[str]:
    """Yields the path of every image, class by class."""
    for name in class_names(root):
        yield from sorted(_images_in(os.path.join(root, name)))


def unreadable_files(root: str | os.PathLike[str]) -> list[str]:
    """Returns the images whose header Pillow cannot read. Opens every file of the data set."""
    bad = []
    for path in image_files(root):
        try:
            with Image.open(path):
                pass
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            bad.append(path)
    return bad


def _images_in(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if any(fnmatch(entry.name.lower(), p) for p in IMAGE_PATTERNS):
                yield entry.path
