"""Pictures of mixed boxes, masks and volumes, of data that are made for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from dali_cutmix.cli import boxes, masks, volumes
from dali_cutmix.cli.shapes import write_shapes, write_solids
from dali_cutmix.mixing.config import MixConfig

__all__ = ["FURTHER", "Shapes", "beside", "further", "shape_data"]

FURTHER = ("boxes", "masks", "volumes")

_SHOWN, _COLUMNS = 8, 4
_CROP = (64, 96, 96)  # voxels


class Shapes(NamedTuple):
    """Images of shapes, their annotations, and their masks."""

    images: str
    annotations: str
    masks: str


@contextmanager
def shape_data() -> Iterator[Shapes]:
    """Makes a temporary data set of shapes, 100 images of 240 x 320."""
    with tempfile.TemporaryDirectory(prefix="dali-cutmix-") as folder:
        images, shown = f"{folder}/images", f"{folder}/masks"
        yield Shapes(images, write_shapes(images, masks=shown, size=(240, 320)), shown)


def further(
    device: Literal["gpu", "cpu"], size: int, seed: int
) -> Iterator[tuple[str, str, Image.Image]]:
    """Yields pictures as the loaders of other tasks give them: a name, what is shown, the picture.

    Args:
        size: side of images.
    """
    mix = MixConfig()
    options = {"batch_size": 16, "device": device, "seed": seed}
    with shape_data() as data:
        objects = boxes.mixed_objects(
            data.images, data.annotations, mix, _SHOWN, size=size, **options
        )
        count = sum(len(sample.labels) for sample in objects)
        about = f"{len(objects)} mixed images with {count} boxes"
        yield "boxes", about, boxes.grid(objects, _COLUMNS)
        samples = masks.mixed_masks(data.images, data.masks, mix, _SHOWN, size=size, **options)
        about = f"{len(samples)} mixed images and their masks"
        yield "masks", about, masks.grid(samples, _COLUMNS)
    with tempfile.TemporaryDirectory(prefix="dali-cutmix-") as folder:
        parts = write_solids(folder, volumes=4, shape=_CROP)
        batch = volumes.mixed_volumes(*parts, size=_CROP, batch_size=4, device=device, seed=seed)
        yield "volumes", "4 mixed volumes, a row each", volumes.slices(*batch)


def beside(path: str, name: str) -> str:
    """Returns the path of a further picture, ``mixed-boxes.png`` beside ``mixed.png``."""
    file = Path(path)
    return str(file.with_name(f"{file.stem}-{name}{file.suffix}"))
