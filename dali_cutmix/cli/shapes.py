"""Small data sets of shapes: images with boxes and masks, and volumes with masks, for examples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["CLASSES", "write_shapes", "write_solids"]

CLASSES = ("disc", "square", "triangle")
_COLORS = ((230, 40, 40), (40, 200, 60), (50, 80, 235), (240, 200, 30), (200, 50, 210))
_MOST_OVERLAP = 0.1  # IoU of two shapes of an image


def write_shapes(
    folder: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    images: int = 100,
    size: tuple[int, int] = (120, 160),
    most: int = 4,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> str:
    """Writes images, with discs, squares and triangles on crops of the shipped photographs.

    Colours say nothing about the class. Sides are a fifth to a half of the image's height; one
    image in ten has no shape.

    Args:
        folder: is made where it is missing.
        masks: a folder for a mask of each image, too: 1, 2 or 3 for the shape of a pixel, else 0.
        images: how many.
        size: (height, width).
        most: shapes of an image.
        seed: the same gives the same pixels.
        advance: called after each image.

    Returns:
        The path of the annotations, ``annotations.json`` in the folder.
    """
    rng = np.random.default_rng(seed)
    for made in (folder, masks):
        if made is not None:
            os.makedirs(made, exist_ok=True)
    height, width = size
    photos = _photos()
    described: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        image = _crop(photos[rng.integers(len(photos))], size, rng)
        mask = Image.new("L", (width, height))
        count = 0 if rng.random() < 0.1 else int(rng.integers(1, most + 1))
        for box in _boxes(rng, size, count):
            kind = int(rng.integers(len(CLASSES)))
            _draw(image, CLASSES[kind], box, _COLORS[rng.integers(len(_COLORS))], "white")
            _draw(mask, CLASSES[kind], box, kind + 1, kind + 1)
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
        if masks is not None:
            mask.save(os.path.join(masks, f"{number:04d}.png"))
        described.append({"id": number, "file_name": name, "height": height, "width": width})
        advance()
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
    image: Image.Image,
    kind: str,
    box: tuple[int, int, int],
    fill: tuple[int, int, int] | int,
    outline: str | int,
) -> None:
    x, y, side = box
    right, bottom = x + side - 1, y + side - 1  # Pillow's are inclusive
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse((x, y, right, bottom), fill=fill, outline=outline)
    elif kind == "square":
        draw.rectangle((x, y, right, bottom), fill=fill, outline=outline)
    else:
        corners = [(x, bottom), (right, bottom), (x + side // 2, y)]
        draw.polygon(corners, fill=fill, outline=outline)


def write_solids(
    folder: str | os.PathLike[str],
    *,
    volumes: int = 8,
    shape: tuple[int, int, int] = (48, 64, 64),
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> tuple[str, str]:
    """Writes volumes of noise, with a ball (class 1) and a cube (class 2) that are equally bright.

    Each is as bright as it likes. Volumes are int16, about -300 to 400, masks uint8, .npy files of
    the same names.

    Args:
        folder: gets ``images`` and ``masks``.
        volumes: how many.
        shape: (D, H, W), at least 16 each.
        seed: the same gives the same voxels.
        advance: called after each volume.

    Returns:
        The paths of both folders.
    """
    rng = np.random.default_rng(seed)
    parts = tuple(os.path.join(folder, name) for name in ("images", "masks"))
    for part in parts:
        os.makedirs(part, exist_ok=True)
    axes = [
        np.arange(side).reshape([-1 if i == k else 1 for i in range(3)])
        for k, side in enumerate(shape)
    ]
    for number in range(volumes):
        mask = np.zeros(shape, np.uint8)
        for label in (1, 2):
            radius = rng.uniform(0.17, 0.28) * min(shape)
            away = [np.abs(axis - rng.uniform(radius, axis.size - 1 - radius)) for axis in axes]
            if label == 1:
                inside = sum(distance**2 for distance in away) < radius**2
            else:
                inside = np.maximum.reduce(np.broadcast_arrays(*away)) < 0.75 * radius
            mask[inside] = label
        volume = rng.normal(rng.uniform(-100, 100), 40, shape) + 120 * (mask > 0)
        for part, array in zip(parts, (volume.astype(np.int16), mask), strict=True):
            np.save(os.path.join(part, f"{number:03d}.npy"), np.asarray(array))
        advance()
    return parts[0], parts[1]
