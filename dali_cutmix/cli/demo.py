"""The demonstration: photographs through the training pipeline, and a picture of the result."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dali_cutmix.loaders.classification import train_loader
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.pipelines.imagenet import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "MixedSample",
    "caption_lines",
    "grid",
    "mixed_samples",
    "photo_folder",
    "shown_name",
]

_CROPS_A_CLASS = 40
_MOST_BATCHES = 16  # of a picture, where a batch shares its draws
_LEAST = 0.005  # shares below it are 0.00 in print


class MixedSample(NamedTuple):
    """One mixed training sample, read back from the pipeline's outputs."""

    pixels: NDArray[np.uint8]  # (H, W, 3), normalisation undone
    target: NDArray[np.float32]  # (K,)
    lam: float
    box: tuple[int, int, int, int]
    label: int
    partner_label: int
    shares: dict[int, float]  # of each class, without label smoothing; the image's own is first
    paired: bool = True  # whether a partner was found


@contextmanager
def photo_folder(crops_a_class: int = _CROPS_A_CLASS) -> Iterator[str]:
    """Makes a temporary ImageFolder of crops of the shipped photographs, one class a photograph."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="dali-cutmix-") as root:
        photos = resources.files("dali_cutmix").joinpath("photos").iterdir()
        for photo in sorted(photos, key=lambda p: p.name):
            if not photo.name.endswith(".jpg"):
                continue
            folder = os.path.join(root, photo.name.removesuffix(".jpg"))
            os.mkdir(folder)
            with photo.open("rb") as file:
                image = Image.open(file).convert("RGB")
            for i in range(crops_a_class):
                width, height = (int(side * rng.uniform(0.7, 1)) for side in image.size)
                x = int(rng.integers(image.width - width + 1))
                y = int(rng.integers(image.height - height + 1))
                crop = image.crop((x, y, x + width, y + height))
                crop.save(os.path.join(folder, f"{i:03d}.jpg"), quality=90)
        yield root


def mixed_samples(root: str, mix: MixConfig, count: int, **options: Any) -> list[MixedSample]:
    """Returns `count` samples of the training loader, from its first, with what was mixed in each.

    Where samples of a batch share their draws, they are of several batches.

    Args:
        root: ImageFolder.
        mix: with soft targets.
        options: further arguments of `train_loader`.
    """
    samples: list[MixedSample] = []
    with train_loader(root, mix=mix, with_params=True, **options) as loader:
        most = _most_of_a_batch(mix.mode, loader.batch_size, count)
        while len(samples) < count:
            for images, batch in loader:
                values = [tensor.cpu().numpy()[:most] for tensor in (images, *batch)]
                samples += [_sample(mix, *sample) for sample in zip(*values, strict=True)]
                if len(samples) >= count:
                    break
    return samples[:count]


def _most_of_a_batch(mode: str, batch_size: int, count: int) -> int:
    """Returns how many samples of a batch are shown: of those that share draws, few."""
    if mode == "batch":
        return -(-count // _MOST_BATCHES)
    return batch_size // 2 if mode == "pair" else batch_size


def _sample(
    mix: MixConfig,
    image: NDArray[np.float32],
    target: NDArray[np.float32],
    lam: NDArray[np.float32],
    box: NDArray[np.int32],
    label: NDArray[np.int64],
    partner_label: NDArray[np.int64],
    paired: NDArray[np.bool_] | None = None,
) -> MixedSample:
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    pixels = 255 * (image.transpose(1, 2, 0) * std + mean)
    y, x, h, w = box.tolist()
    return MixedSample(
        pixels.round().clip(0, 255).astype(np.uint8),
        target,
        float(lam),
        (y, x, h, w),
        int(label),
        int(partner_label),
        _shares(target, int(label), mix.label_smoothing),
        paired is None or bool(paired),
    )


def _shares(target: NDArray[np.float32], label: int, smoothing: float) -> dict[int, float]:
    """Returns what each class has of a target, smoothing undone: that of the label, then others."""
    if smoothing == 1:  # nothing is left to tell
        return {label: 1.0}
    shares = (target - smoothing / len(target)) / (1 - smoothing)
    order = sorted(np.flatnonzero(shares > _LEAST).tolist(), key=lambda k: (k != label, -shares[k]))
    return {k: float(shares[k]) for k in order}


def grid(samples: list[MixedSample], classes: list[str], columns: int) -> Image.Image:
    """Returns a picture of the samples in rows, under each the shares of its target."""
    height, width = samples[0].pixels.shape[:2]
    columns = min(columns, len(samples))
    captions = [caption_lines(sample, classes) for sample in samples]
    margin, caption = 8, 6 + 19 * max(2, *map(len, captions))
    rows = -(-len(samples) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + margin) + margin, rows * (height + caption + margin) + margin),
        "white",
    )
    font = ImageFont.load_default(size=15)
    for i, sample in enumerate(samples):
        cell = Image.new("RGB", (width, height + caption), "white")
        cell.paste(Image.fromarray(sample.pixels), (0, 0))
        draw = ImageDraw.Draw(cell)
        for line, text in enumerate(captions[i]):
            draw.text((0, height + 3 + 19 * line), text, fill="black", font=font)
        left = margin + i % columns * (width + margin)
        top = margin + i // columns * (height + caption + margin)
        sheet.paste(cell, (left, top))
    return sheet


def caption_lines(sample: MixedSample, classes: list[str]) -> list[str]:
    """Returns the mixed labels with their shares, such as ``["0.68 coffee", "0.32 cat"]``.

    Two images of one class are ``["cat + cat"]``.
    """
    names = [shown_name(name) for name in classes]
    if len(sample.shares) == 1 and sample.lam < 1 and sample.label == sample.partner_label:
        return [f"{names[sample.label]} + {names[sample.label]}"]
    return [f"{share:.2f} {names[k]}" for k, share in sample.shares.items()]


def shown_name(name: str) -> str:
    """Returns the name of a class, in quotes where it could be taken for a number."""
    return repr(name) if re.fullmatch(r"[\d.,+-]+", name) else name
