"""Shapes on real photographs, for networks that are to find them: discs are 1, squares 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["shapes_and_masks"]


def shapes_and_masks(photos: str, root: Path, count: int, seed: int, side: int = 48) -> Path:
    """Writes images/ and masks/; discs are of black and white noise, squares of stripes."""
    rng = np.random.default_rng(seed)
    files = sorted(Path(photos).glob("*/*.jpg"))
    y, x = np.mgrid[:side, :side]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        with Image.open(files[rng.integers(len(files))]) as photo:
            image = np.asarray(photo.convert("RGB").resize((side, side)))
        mask = np.zeros((side, side), np.uint8)
        for _ in range(rng.integers(1, 3)):
            kind, radius = int(rng.integers(1, 3)), int(rng.integers(side // 8, side // 4))
            cy, cx = rng.integers(radius, side - radius, 2)
            distance: Any = (
                np.hypot(y - cy, x - cx) if kind == 1 else np.maximum(abs(y - cy), abs(x - cx))
            )
            mask[distance <= radius] = kind
        noise, stripes = rng.integers(0, 2, (side, side)), (y + x) // 2 % 2
        for kind, texture in ((1, noise), (2, stripes)):
            image = np.where(mask[..., None] == kind, texture[..., None] * 255, image)
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i:03d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i:03d}.png")
    return root
