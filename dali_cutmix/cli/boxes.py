"""A picture of mixed images with the boxes of their objects."""

from __future__ import annotations

import colorsys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dali_cutmix.loaders.detection import detection_loader
from dali_cutmix.mixing.config import MixConfig

__all__ = ["MixedObjects", "grid", "mixed_objects"]

_MARGIN = 8


class MixedObjects(NamedTuple):
    """One mixed training sample.

    Fields:
        pixels: uint8 (H, W, 3).
        boxes: float32 (n, 4), ltrb in pixels.
        labels: names of the classes.
        image_id, partner_id: of the image, and of what was pasted.
        lam: share of the image.
        cut: what was pasted, (y, x, h, w).
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: tuple[str, ...]
    image_id: int
    partner_id: int
    lam: float
    cut: tuple[int, int, int, int]


def mixed_objects(
    images: str, annotations: str, mix: MixConfig, count: int, **options: Any
) -> list[MixedObjects]:
    """Returns the first `count` samples of the training loader, with what was mixed in each."""
    raw: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "with_params": True}
    found: list[MixedObjects] = []
    with detection_loader(images, annotations, mix=mix, **raw, **options) as loader:
        while len(found) < count:
            for batch, targets in loader:
                found += [
                    _sample(pixels, target, loader.classes or ())
                    for pixels, target in zip(batch.cpu().numpy(), targets, strict=True)
                ]
                if len(found) >= count:
                    break
    return found[:count]


def _sample(
    pixels: NDArray[np.float32], target: dict[str, Any], classes: tuple[str, ...]
) -> MixedObjects:
    y, x, h, w = target["cut"].tolist()
    return MixedObjects(
        (255 * pixels.transpose(1, 2, 0)).round().astype(np.uint8),
        target["boxes"].cpu().numpy(),
        tuple(classes[label] for label in target["labels"].tolist()),
        int(target["image_id"]),
        int(target["partner_id"]),
        float(target["lam"]),
        (y, x, h, w),
    )


def grid(samples: list[MixedObjects], columns: int) -> Image.Image:
    """Returns a picture of the samples in rows; a class has one colour."""
    height, width = samples[0].pixels.shape[:2]
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    sides = columns * (width + _MARGIN) + _MARGIN, rows * (height + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", sides, "white")
    names = sorted({name for sample in samples for name in sample.labels})
    font = ImageFont.load_default(size=12)
    for i, sample in enumerate(samples):
        cell = Image.fromarray(sample.pixels)
        draw = ImageDraw.Draw(cell)
        for box, name in zip(sample.boxes.tolist(), sample.labels, strict=True):
            color = _color(names.index(name), len(names))
            draw.rectangle(box, outline=color, width=2)
            place = box[0] + 3, box[1] + 2
            draw.text(place, name, fill=color, font=font, stroke_width=2, stroke_fill="black")
        left, top = i % columns * (width + _MARGIN), i // columns * (height + _MARGIN)
        sheet.paste(cell, (left + _MARGIN, top + _MARGIN))
    return sheet


def _color(number: int, count: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * x) for x in colorsys.hsv_to_rgb(number / count, 0.6, 1.0))
    return red, green, blue
