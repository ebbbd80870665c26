"""COCO's annotations: images, boxes and the names of their classes, from one JSON file.

What DALI's reader does not say is looked for here: it gives an unknown category the label 0, leaves
out annotations of unknown images, and passes boxes that reach outside. Objects are numbered from 1,
in the order of their categories' ids or of `classes`: 0 is the background, as in torchvision's
detection models. Crowds (``iscrowd``) are not read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dali_cutmix.data.formats.listed import is_there

__all__ = ["BACKGROUND", "Annotations", "Fault", "read_annotations"]

BACKGROUND = "__background__"  # the class 0, by torchvision's name
_OUTSIDE = 1.0  # pixels that a box may reach outside: it is clipped there
_MOST_IDS = 2**16  # of fn.lookup_table
_PARTS = ("images", "annotations", "categories")


class Fault(NamedTuple):
    """What is wrong with an image or its annotations: a key of `verification.PROBLEMS`, and words.

    Fields:
        file: name of the image, or path of the annotations.
    """

    file: str
    problem: str
    detail: str


class Annotations(NamedTuple):
    """What a file of annotations says.

    Fields:
        path: of the file.
        digest: of its bytes.
        category_ids: of each class, in the order of its label, from 1; -1 where the file has none.
        sizes: (height, width) of each image, by its name.
        empty: images without a box.
        boxes: number of boxes in all.
        faults: what is wrong with the images and their boxes.
    """

    path: str
    digest: str
    category_ids: tuple[int, ...]
    sizes: dict[str, tuple[int, int]]
    empty: frozenset[str]
    boxes: int
    faults: tuple[Fault, ...] = ()

    def __repr__(self) -> str:
        return f"<Annotations: {self.path!r}, {len(self.sizes)} images, {self.boxes} boxes>"


class _Image(NamedTuple):
    name: str
    height: int
    width: int


def read_annotations(
    path: str, root: str, classes: Sequence[str] | None = None
) -> tuple[Annotations, dict[str, int], tuple[str, ...]]:
    """Returns the annotations, the id of each image by its name, in the order of the file, and the
    classes, of which the first is `BACKGROUND`.

    Args:
        root: the folder of the images.
        classes: the names of the classes by label, with `BACKGROUND` or without; by default the
            file's, by their ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON of COCO's form, or a category is not among `classes`.
    """
    content, digest = _load(path)
    categories = _categories(content["categories"], path)
    names = _classes(categories, classes, path)
    faults: list[Fault] = []
    by_id = _images(content["images"], path)
    there: dict[str, set[str]] = {}
    for image in by_id.values():
        if not is_there(root, image.name, there):
            faults.append(Fault(image.name, "missing", f"no file in {root!r}"))
    owners = _check_boxes(content["annotations"], by_id, set(categories), path, faults)
    numbers = {name: number for number, name in categories.items()}
    annotations = Annotations(
        path=path,
        digest=digest,
        category_ids=tuple(numbers.get(name, -1) for name in names[1:]),
        sizes={image.name: (image.height, image.width) for image in by_id.values()},
        empty=frozenset(image.name for k, image in by_id.items() if k not in owners),
        boxes=owners.total(),
        faults=tuple(faults),
    )
    return annotations, {image.name: number for number, image in by_id.items()}, names


def _load(path: str) -> tuple[dict[str, Any], str]:
    """Returns what is in the file, and its digest."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        content = json.loads(data.decode(), object_hook=_without_polygons)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path!r} must be JSON, in UTF-8: {error}.") from error
    except RecursionError as error:
        raise ValueError(f"{path!r} must be JSON as COCO has it, is nested too deeply.") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in _PARTS):
        raise ValueError(f"{path!r} must have lists {', '.join(map(repr, _PARTS))}, as COCO has.")
    for part in _PARTS:
        for entry in content[part]:
            if not isinstance(entry, dict):
                raise ValueError(f"{path!r}: {part!r} must be objects, got {entry!r}.")
    return content, hashlib.sha256(data).hexdigest()[:16]


def _without_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an object without what is not needed; else COCO's take gigabytes."""
    entry.pop("segmentation", None)
    return entry


def _categories(entries: list[dict[str, Any]], path: str) -> dict[int, str]:
    """Returns the name of each category by its id."""
    found: dict[int, str] = {}
    for entry in entries:
        number = entry.get("id")
        if type(number) is not int or not 0 <= number < _MOST_IDS or number in found:
            raise ValueError(
                f"{path!r}: the ids of categories must be different and in [0, {_MOST_IDS}), got "
                f"{number!r}."
            )
        found[number] = str(entry.get("name", number))
    if not found or len(set(found.values())) < len(found) or BACKGROUND in found.values():
        raise ValueError(
            f"{path!r} must have categories of different names, and none {BACKGROUND!r}, got "
            f"{list(found.values())}."
        )
    return found


def _classes(
    categories: dict[int, str], classes: Sequence[str] | None, path: str
) -> tuple[str, ...]:
    if classes is None:
        return (BACKGROUND, *(categories[number] for number in sorted(categories)))
    names = tuple(classes)[1:] if classes[0] == BACKGROUND else tuple(classes)
    unknown = [name for name in categories.values() if name not in names]
    if unknown:
        listed = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise ValueError(f"`classes` must name every category of {path!r}, lacks {listed}.")
    return (BACKGROUND, *names)


def _images(entries: list[dict[str, Any]], path: str) -> dict[int, _Image]:
    """Returns the images by their ids."""
    by_id: dict[int, _Image] = {}
    number: Any
    name: Any
    sides: list[Any]
    for entry in entries:
        number, name, *sides = (entry.get(k) for k in ("id", "file_name", "height", "width"))
        right = type(number) is int and 0 <= number < 2**31 and isinstance(name, str) and name
        if not right or not all(type(side) is int and 0 < side < 2**31 for side in sides):
            raise ValueError(
                f"{path!r}: an image must have an id in [0, 2^31), a file_name, a height and a "
                f"width, got {entry!r}."
            )
        if number in by_id:
            raise ValueError(f"{path!r}: images must have different ids, got {number} twice.")
        by_id[number] = _Image(name, *sides)
    if not by_id:
        raise ValueError(f"{path!r} must have at least one image, has none.")
    name, times = Counter(image.name for image in by_id.values()).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path!r}: images must have different files, got {name!r} twice.")
    return by_id


def _check_boxes(
    entries: list[dict[str, Any]],
    by_id: dict[int, _Image],
    categories: set[int],
    path: str,
    faults: list[Fault],
) -> Counter[int]:
    """Adds what is wrong with the boxes to the faults; returns how many each image has, by id.

    Raises:
        ValueError: a box is none. DALI does not read such a file, whichever images are read of it.
    """
    rows: list[list[float]] = []
    owners: list[int] = []
    box: Any
    for entry in entries:
        box, image = entry.get("bbox"), entry.get("image_id")
        if not _is_box(box):
            raise ValueError(
                f"{path!r}: a bbox must be four numbers, x, y, width and height, got {box!r} in "
                f"annotation {entry.get('id')!r} of image {image!r}."
            )
        if type(image) is not int or image not in by_id:
            words = f"annotation {entry.get('id')!r} is of image {image!r}, which is not there"
            faults.append(Fault(path, "entry", words))
        elif entry.get("category_id") not in categories:
            words = f"category {entry.get('category_id')!r}, which is not there"
            faults.append(Fault(by_id[image].name, "label", words))
        elif not entry.get("iscrowd"):
            rows.append(box)
            owners.append(image)
    if rows:
        faults += _faults_of_boxes(rows, [by_id[image] for image in owners])
    return Counter(owners)


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    return all(type(x) in (int, float) and abs(x) < 2**31 for x in box)  # nan is not


def _faults_of_boxes(rows: list[list[float]], images: list[_Image]) -> list[Fault]:
    boxes = np.array(rows, np.float64)
    sizes = np.array([(image.width, image.height) for image in images], np.float64)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    flat: Any = (boxes[:, 2:] <= 0).any(axis=1)
    beyond = ((low < -_OUTSIDE) | (high > sizes + _OUTSIDE)).any(axis=1)
    hidden = (np.minimum(high, sizes) <= np.maximum(low, 0)).any(axis=1)
    found = []
    for k in np.flatnonzero(flat | beyond | hidden):
        image = images[k]
        what = "has no area" if flat[k] else f"reaches out of {image.width} x {image.height}"
        found.append(Fault(image.name, "box", f"{rows[k]} (x, y, width, height) {what}"))
    return found
