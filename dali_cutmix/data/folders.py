"""ImageFolder data sets: one folder a class, classes in sorted order.

The rules, for the loaders and for `check` alike:

- classes are the folders in the root, by name, in the order of text, as torchvision has them;
- hidden files and folders (``.ipynb_checkpoints``, ``._1.jpg``) are ignored, and so are folders
  that systems make (``__MACOSX``, ``lost+found``);
- folders inside class folders belong to the class, in torchvision's order;
- a class without images, the parent of train/ and val/, and a class folder itself are refused, with
  what was probably meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = [
    "FORMATS",
    "IMAGE_EXTENSIONS",
    "IMAGE_PATTERNS",
    "Entry",
    "class_filters",
    "class_folders",
    "class_names",
    "folder_entries",
    "holds_image",
    "image_files",
    "is_image_name",
    "is_nested",
    "names_and_nesting",
    "names_of_images",
]


IMAGE_EXTENSIONS = tuple("jpg jpeg png bmp tif tiff pnm ppm pgm pbm jp2 webp".split())
IMAGE_PATTERNS = tuple(f"[!.]*.{extension}" for extension in IMAGE_EXTENSIONS)  # none hidden
_ENDINGS = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
FORMATS = {"JPEG", "MPO", "PNG", "BMP", "TIFF", "PPM", "JPEG2000", "WEBP"}
_OF_SYSTEMS = {
    *("__MACOSX", "__pycache__", "lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN"),
    "System Volume Information",
}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "eval"}


def class_names(root: str | os.PathLike[str]) -> list[str]:
    """Returns the names of the class folders in `root`, sorted; label k belongs to the k-th.

    Raises:
        FileNotFoundError: `root` does not exist, or it or one of its classes holds no image.
        NotADirectoryError: `root` is a file.
        ValueError: `root` is the parent of train/ and val/, or a class folder.
    """
    root = _existing(root)
    names = class_folders(root)
    _check_classes(root, {name: holds_image(os.path.join(root, name)) for name in names})
    return names


def names_and_nesting(root: str | os.PathLike[str]) -> tuple[list[str], bool]:
    """Returns `class_names`, and whether a class has folders inside, which DALI does not enter.

    Each folder is listed once: with a million files that takes half a second.
    """
    root = _existing(root)
    direct, nested = {}, False
    for name in class_folders(root):
        folder = os.path.join(root, name)
        inside = os.listdir(folder)
        direct[name] = any(map(is_image_name, inside))
        nested = nested or _has_folders(folder, inside)
    _check_classes(root, direct)
    return list(direct), nested


def _existing(root: str | os.PathLike[str]) -> str:
    root = os.fspath(root)
    if not os.path.exists(root):
        raise FileNotFoundError(f"`source` must be an existing folder, got {root!r}.")
    if not os.path.isdir(root):
        raise NotADirectoryError(f"`source` must be a folder, got the file {root!r}.")
    return root


def _check_classes(root: str, direct: dict[str, bool]) -> None:
    """Refuses what is no folder of classes; `direct` says which class folders hold images."""
    names = list(direct)
    if not names:
        if holds_image(root):
            raise ValueError(
                f"`source` must hold one folder of images a class, got {root!r}, which holds "
                "images itself: give the folder it is in, or move the images into class folders."
            )
        raise FileNotFoundError(
            f"`source` must hold one folder of images a class, got {root!r} without folders."
        )
    if {name.lower() for name in names} <= _SPLITS and not any(direct.values()):
        listed = " and ".join(repr(name) for name in names)
        raise ValueError(
            f"`source` must hold one folder of images a class, got {root!r}, the parent of "
            f"{listed}: give {os.path.join(root, names[0])!r}."
        )
    empty = [name for name in names if not direct[name] and not _holds_nested(root, name)]
    if empty:
        listed = ", ".join(repr(name) for name in empty[:5]) + (", …" if len(empty) > 5 else "")
        raise FileNotFoundError(
            f"`source` must hold images in every class folder, got {root!r} with "
            f"{len(empty)} of {len(names)} empty: {listed}. Remove the empty folders, or name all "
            "classes by find_source(…, classes=…)."
        )


def class_folders(root: str) -> list[str]:
    """Returns the names of the folders in `root` that are classes, sorted, also the empty ones."""
    with os.scandir(root) as entries:
        return sorted(
            entry.name for entry in entries if not _ignored(entry.name) and entry.is_dir()
        )


def class_filters(root: str, names: Iterable[str]) -> list[str]:
    """Returns DALI's `dir_filters` for the class folders."""
    with os.scandir(root) as entries:
        others = any(entry.name in _OF_SYSTEMS for entry in entries)
    # A pattern for each of a thousand names is tried with each folder.
    return [name.replace("[", "[[]") for name in names] if others else ["[!.]*"]


def is_nested(root: str, names: Iterable[str]) -> bool:
    """Returns whether a class folder has folders inside, which DALI does not enter."""
    return any(_has_folders(os.path.join(root, name)) for name in names)


def image_files(root: str | os.PathLike[str]) -> Iterator[str]:
    """Yields the path of every image, class by class."""
    root = os.fspath(root)
    for name in class_names(root):
        for entry in folder_entries(os.path.join(root, name)):
            if entry.is_image:
                yield entry.path


def names_of_images(folder: str) -> list[str]:
    """Returns the names of the images that lie in a folder itself, sorted."""
    return sorted(name for name in os.listdir(folder) if is_image_name(name))


class Entry(NamedTuple):
    """A file in a class folder, or in a folder inside it, that is not hidden."""

    path: str
    is_image: bool


def folder_entries(folder: str) -> Iterator[Entry]:
    """Yields the files of a class folder, in torchvision's order: folder by folder, by name."""
    inside = []
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _ignored(name)]
        inside.append((path, files))
    for path, files in sorted(inside):
        for name in sorted(files):
            if not _ignored(name):
                yield Entry(os.path.join(path, name), is_image_name(name))


def is_image_name(name: str) -> bool:
    """Returns whether a file of this name is read as an image."""
    return name.lower().endswith(_ENDINGS) and not name.startswith(".")


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in _OF_SYSTEMS


def holds_image(folder: str) -> bool:
    """Returns whether an image lies in a folder itself, by its name."""
    with os.scandir(folder) as entries:
        return any(is_image_name(entry.name) for entry in entries)


def _holds_nested(root: str, name: str) -> bool:
    folder = os.path.join(root, name)
    return _has_folders(folder) and any(entry.is_image for entry in folder_entries(folder))


def _has_folders(folder: str, inside: list[str] | None = None) -> bool:
    # Many file systems count a folder's folders among its links, beside itself and its name. Else
    # what is named as an image is taken for a file: to ask costs, where a million files are links.
    if os.stat(folder).st_nlink <= 2 and _all_end_as_images(
        os.listdir(folder) if inside is None else inside
    ):
        return False
    with os.scandir(folder) as entries:
        return any(not _ignored(entry.name) and entry.is_dir() for entry in entries)


def _all_end_as_images(names: list[str]) -> bool:
    # As one text: a million names one by one take a third of a second. None has a "/".
    text = "/".join([*names, ""]).lower()
    count = 0
    for ending in _ENDINGS:
        count += text.count(f"{ending}/")
        if count == len(names):
            return True
    return False
