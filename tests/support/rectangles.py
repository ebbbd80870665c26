"""COCO data sets of rectangles on black, each of a colour and a category of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Rectangles", "coco", "write_rectangles"]

Array = NDArray[Any]


def _colors() -> Array:
    """Colours of which none is near to another one, nor to a darker shade of it, as edges have."""
    found: list[Array] = []
    for color in np.array(np.meshgrid(*[range(60, 256, 39)] * 3)).reshape(3, -1).T[::-1]:
        shades = [np.linspace(0, 1, 101)[:, None] * other for other in (color, *found)]
        near = [np.abs(shades[0] - other).max(1).min() for other in found]
        near += [np.abs(shade - color).max(1).min() for shade in shades[1:]]
        if min(near, default=255) > 7:
            found.append(color)
    return np.array(found)


COLORS = _colors()


class Rectangles(NamedTuple):
    """A data set as it was written.

    Fields:
        folder, annotations: where.
        images: uint8 (H, W, 3), by image id.
        boxes: float32 (n, 4), ltrb in [0, 1], by image id.
        labels: int64 (n,), from 1, by image id.
        owner: image id by label.
        colors: uint8 (3,), by label.
    """

    folder: Path
    annotations: Path
    images: dict[int, Array]
    boxes: dict[int, Array]
    labels: dict[int, Array]
    owner: dict[int, int]
    colors: dict[int, Array]


def coco(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: dict[int, str]
) -> dict[str, Any]:
    """Annotations in COCO's form; what an entry lacks of the usual is filled in."""
    return {
        "images": [{"height": 40, "width": 48, **image} for image in images],
        "annotations": [
            {"id": k, "iscrowd": 0, "area": 1.0, **one} for k, one in enumerate(annotations, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }


def write_rectangles(
    folder: Path,
    count: int,
    *,
    size: tuple[int, int] = (40, 48),
    most: int = 3,
    least: int = 0,
    seed: int = 0,
) -> Rectangles:
    """Writes PNGs with `least` to `most` rectangles each, which do not touch."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, Array] = {}
    rows: list[tuple[int, int, tuple[int, ...]]] = []  # image id, label, ltrb in pixels
    numbers = rng.permutation(1000)[:count].tolist()
    for number in numbers:
        pixels = np.zeros((*size, 3), np.uint8)
        for x0, y0, x1, y1 in _apart(rng, size, int(rng.integers(least, most + 1))):
            rows.append((number, len(rows) + 1, (x0, y0, x1, y1)))
            pixels[y0:y1, x0:x1] = COLORS[len(rows) - 1]
        found[number] = pixels
        Image.fromarray(pixels).save(folder / f"{number}.png")
    # The order in the file says nothing, and neither do the ids but for their order.
    height, width = size
    categories = {5 * label + 2: f"r{label}" for _, label, _ in rows} or {2: "r0"}
    shuffled = [list(categories.items())[i] for i in rng.permutation(len(categories))]
    content = coco(
        [{"id": k, "file_name": f"{k}.png", "height": height, "width": width} for k in numbers],
        [
            {"image_id": k, "category_id": 5 * label + 2, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for k, label, (x0, y0, x1, y1) in rows
        ],
        dict(shuffled),
    )
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    sides = np.array([width, height] * 2, np.float32)
    own = {k: [row for row in rows if row[0] == k] for k in numbers}
    return Rectangles(
        folder,
        path,
        found,
        {k: np.array([r[2] for r in own[k]], np.float32).reshape(-1, 4) / sides for k in numbers},
        {k: np.array([r[1] for r in own[k]], np.int64) for k in numbers},
        {label: k for k, label, _ in rows},
        {label: COLORS[label - 1] for _, label, _ in rows},
    )


def _apart(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> list[tuple[int, int, int, int]]:
    taken = np.zeros(size, bool)
    found = []
    for _ in range(200):
        if len(found) == count:
            break
        h, w = rng.integers(6, size[0] // 2), rng.integers(6, size[1] // 2)
        y, x = rng.integers(0, size[0] - h + 1), rng.integers(0, size[1] - w + 1)
        around = slice(max(0, y - 2), y + h + 2), slice(max(0, x - 2), x + w + 2)
        if not taken[around].any():
            taken[y : y + h, x : x + w] = True
            found.append((int(x), int(y), int(x + w), int(y + h)))
    return found
