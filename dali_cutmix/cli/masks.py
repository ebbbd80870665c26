"""A picture of mixed images with their masks over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dali_cutmix.loaders.segmentation import segmentation_loader
from dali_cutmix.mixing.config import MixConfig

__all__ = ["COLORS", "grid", "mixed_masks", "overlaid"]

# Of classes 1, 2 …, and again from the first.
COLORS = np.array([(230, 60, 60), (70, 190, 90), (80, 130, 250), (240, 200, 60), (200, 90, 220)])
_OPACITY = 0.7
_MARGIN = 8

Sample = tuple[NDArray[np.uint8], NDArray[np.int64]]


def mixed_masks(
    images: str, masks: str, mix: MixConfig, count: int, **options: Any
) -> list[Sample]:
    """Returns the first `count` samples of the training loader: pixels (H, W, 3), mask (H, W)."""
    raw: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "blend": "heavier"}
    found: list[Sample] = []
    with segmentation_loader(images, masks, mix=mix, **raw, **options) as loader:
        while len(found) < count:
            for batch, classes in loader:
                pixels = (255 * batch.permute(0, 2, 3, 1)).round().byte().cpu().numpy()
                found += zip(pixels, classes.cpu().numpy(), strict=True)
    return found[:count]


def overlaid(pixels: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns an image, (H, W, 3), with the colour of its class over each pixel but those of 0."""
    shown = pixels.astype(np.float32)
    inside = mask > 0
    colors = COLORS[(mask[inside] - 1) % len(COLORS)]
    shown[inside] = (1 - _OPACITY) * shown[inside] + _OPACITY * colors
    return shown.round().astype(np.uint8)


def grid(samples: list[Sample], columns: int) -> Image.Image:
    """Returns a picture of the samples in rows."""
    height, width = samples[0][1].shape
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    sides = columns * (width + _MARGIN) + _MARGIN, rows * (height + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", sides, "white")
    for i, sample in enumerate(samples):
        left, top = i % columns * (width + _MARGIN), i // columns * (height + _MARGIN)
        sheet.paste(Image.fromarray(overlaid(*sample)), (left + _MARGIN, top + _MARGIN))
    return sheet
