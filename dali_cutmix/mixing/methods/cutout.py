"""Cutout: a square of the image is filled, and its label kept.

Rule      a centre uniform over the pixels; [c - length // 2, c + length // 2) in each axis, clipped
          to the image, is filled. No partner shows, and lam is 1
Paper     DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with
          Cutout", and the authors' code
Defaults  16 pixels, theirs for CIFAR-10 (8 for CIFAR-100), where it is half of the image; filled
          with 0, as there after normalisation: give `fill` the mean of your images for that
Gain      CIFAR-10, ResNet-18: 95.28 to 96.01 with flips and crops (the paper)
Cost      a copy of the images that are cut
When      small images and few data, occlusion; on ImageNet CutMix gains more. Masks of classes keep
          what is filled; boxes of objects are kept where less than ``keep[0]`` of them is filled
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath

from dali_cutmix._validation import checked_int, checked_number, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Rows, Size

__all__ = ["Cutout"]

_MOST_CHANNELS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout(Method):
    """Cutout (DeVries and Taylor 2017).

    Args:
        length: of the side, in pixels, at least 2; of an odd one a pixel is left out.
        fill: what is shown there, in the values of the images: a number, or one for each channel.
            Of uint8 images from 0 to 255, rounded to nearest, halves to even. For `train_loader`
            those of images before they are normalised, also where it mixes them afterwards.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> Cutout(length=112, fill=(124, 116, 104)).fill
    (124.0, 116.0, 104.0)
    """

    length: int = 16
    fill: float | tuple[float, ...] = 0.0
    shows: ClassVar[Literal["fill"]] = "fill"

    def __post_init__(self) -> None:
        set_checked(self, "length", checked_int("length", self.length, 2))
        fill: Any = self.fill
        if isinstance(fill, Sequence) and not isinstance(fill, (str, bytes)):
            if not 1 <= len(fill) <= _MOST_CHANNELS:
                raise ValueError(
                    f"`fill` must be a number, or one for each channel (at most 16), got {fill!r}."
                )
            set_checked(self, "fill", tuple(checked_number("fill", x) for x in fill))
        else:
            set_checked(self, "fill", checked_number("fill", fill))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns the box that is filled; lam is 1."""
        position = draw.uniform("cutout centre", 2)
        centre, half = dmath.floor(position * size.node), self.length // 2
        start = dmath.max(centre - half, 0.0)
        sides = dmath.min(centre + half, size.node) - start
        box = fn.cast(fn.cat(start, sides, axis=1), dtype=types.INT32)
        lam = position[:, :1] * 0.0 + 1.0
        return Rows(lam, boxes=fn.expand_dims(box, axes=[1]), num_boxes=1)

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Cutout:
        """Returns the same for images that are normalised before they are mixed.

        Args:
            mean, std: of the channels, in the values of the images.

        Raises:
            ValueError: `fill` is not of as many channels.
        """
        fill = self.fill if isinstance(self.fill, tuple) else (self.fill,) * len(mean)
        if len(fill) != len(mean):
            raise ValueError(
                "`fill` of Cutout must be a number, or one for each channel of the images, "
                f"{len(mean)}, got {self.fill}."
            )
        scaled = ((x - m) / s for x, m, s in zip(fill, mean, std, strict=True))
        return Cutout(length=self.length, fill=tuple(scaled))

    def filling(self, dtype: str) -> float | tuple[float, ...]:
        """Returns `fill` as images of a type have it."""
        if dtype != "uint8":
            return self.fill
        # What is not in range a GPU clips, and DALI on the CPU wraps; it cuts off fractions too.
        if not 0 <= np.min(self.fill) <= np.max(self.fill) <= 255:
            raise ValueError(
                f"`fill` of Cutout must be in [0, 255] for uint8 images, got {self.fill}."
            )
        if isinstance(self.fill, tuple):
            return tuple(float(round(number)) for number in self.fill)
        return float(round(self.fill))
