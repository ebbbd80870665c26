"""Shapes on photographs: a small data set for detection, with COCO's annotations, for examples."""

from __future__ import annotations

import json
import os
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["CLASSES", "write_shapes"]

CLASSES = ("disc", "square", "triangle")
_COLORS = ((230, 40, 40), (40, 200, 60), (50, 80, 235), (240, 200, 30), (200, 50, 210))
_MOST_OVERLAP = 0.1  # IoU of two shapes of an image


def write_shapes(
    folder: str | os.PathLike[str],
    *,
    images: int = 100,
    size: tuple[int, int] = (120, 160),
    most: int = 4,
    seed: int = 0,
) -> str:
    """Writes images, with discs, squares and triangles on crops of the shipped photographs.

    Colours say nothing about the class. Sides are a fifth to a half of the image's height; one
    image in ten has no shape.

    Args:
        folder: is made where it is missing.
        images: how many.
        size: (height, width).
        most: shapes of an image.
        seed: the same gives the same pixels.

    Returns:
        The path of the annotations, ``annotations.json`` in the folder.
    """
    rng = np.random.default_rng(seed)
    os.makedirs(folder, exist_ok=True)
    height, width = size
    photos = _photos()
    described: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        image = _crop(photos[rng.integers(len(photos))], size, rng)
        count = 0 if rng.random() < 0.1 else int(rng.integers(1, most + 1))
        for box in _boxes(rng, size, count):
            kind = int(rng.integers(len(CLASSES)))
            _draw(image, CLASSES[kind], box, _COLORS[rng.integers(len(_COLORS))])
            x, y, side = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        name = f"{number:04d}.jpg"
        image.save(os.path.join(folder, name), quality=90)
        described.append({"id": number, "file_name": name, "height": height, "width": width})
    content = {
        "images": described,
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)],
    }
    path = os.path.join(folder, "annotations.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return path


def _photos() -> list[Image.Image]:
    found = []
    for photo in sorted(resources.files("dali_cutmix").joinpath("photos").iterdir(), key=str):
        if photo.name.endswith(".jpg"):
            with photo.open("rb") as file:
                found.append(Image.open(file).convert("RGB"))
    return found


def _crop(photo: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    height, width = size
    scale = rng.uniform(0.4, 1.0) * min(photo.width / width, photo.height / height)
    w, h = scale * width, scale * height
    x, y = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
    return photo.resize((width, height), box=(x, y, x + w, y + h))


def _boxes(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> list[tuple[int, int, int]]:
    """Returns (x, y, side) of shapes that hardly overlap, `count` where they find room."""
    height, width = size
    found: list[tuple[int, int, int]] = []
    for _ in range(20 * count):
        side = int(rng.integers(height // 5, height // 2))
        x, y = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
        box = int(x), int(y), side
        if all(_iou(box, other) <= _MOST_OVERLAP for other in found):
            found.append(box)
        if len(found) == count:
            break
    return found


def _iou(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    w, h = (max(0, min(a[k] + a[2], b[k] + b[2]) - max(a[k], b[k])) for k in (0, 1))
    return w * h / (a[2] ** 2 + b[2] ** 2 - w * h)


def _draw(
    image: Image.Image, kind: str, box: tuple[int, int, int], color: tuple[int, int, int]
) -> None:
    x, y, side = box
    right, bottom = x + side - 1, y + side - 1  # Pillow's are inclusive
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse((x, y, right, bottom), fill=color, outline="white")
    elif kind == "square":
        draw.rectangle((x, y, right, bottom), fill=color, outline="white")
    else:
        corners = [(x, bottom), (right, bottom), (x + side // 2, y)]
        draw.polygon(corners, fill=color, outline="white")
