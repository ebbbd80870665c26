"""SmoothMix: the partner shows through a spot with soft edges, which fades out by a Gaussian.

Rule      image + w * (partner - image), w = exp(-r ** 2 / (2 sigma ** 2)) at r pixels from a
          centre that is uniform over the pixels; sigma ~ U(scope) * H; lam = 1 - mean(w)
Paper     Lee et al. 2020, "SmoothMix: a Simple Yet Effective Data Augmentation to Train Robust
          Classifiers" (CVPR workshops)
Defaults  scope (0.25, 0.5), as openmixup
Deviation openmixup returns mean(w), the partner's share, for lam, so that its labels are swapped;
          its centre is half a pixel up and left, and its images must be square
Rounding  uint8 images to nearest
Gain      Tiny-ImageNet, ResNet-18: 66.65 (CutMix 65.53, openmixup)
Cost      the dearest of all on the CPU: arithmetic in float32 on every pixel
When      robustness to corruptions, and where the edges of a pasted box are learned. Not with boxes
          of objects, of which it shows some faintly
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._rules import states
from dali_cutmix._validation import checked_numbers, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Part, Rows, Size

__all__ = ["SmoothMix"]

_NUMBERS = np.arange(2**14, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothMix(Method):
    """SmoothMix (Lee et al. 2020).

    Args:
        scope: (lo, hi) with 0 < lo < hi <= 10, between which sigma is uniform, in heights of the
            image.

    Raises:
        TypeError, ValueError: `scope` is no such pair.

    >>> SmoothMix().scope
    (0.25, 0.5)
    """

    scope: tuple[float, float] = (0.25, 0.5)
    shows: ClassVar[Literal["weights"]] = "weights"

    def __post_init__(self) -> None:
        low, high = checked_numbers("scope", self.scope, 2)
        if not 0 < low < high <= 10:
            raise ValueError(
                f"`scope` must be (lo, hi) with 0 < lo < hi <= 10, got {self.scope!r}."
            )
        set_checked(self, "scope", (low, high))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns centre and sigma, a float32, and lam as the weights have it."""
        low, high = self.scope
        centre = dmath.floor(draw.uniform("smoothmix centre", 2) * size.node)
        centre = fn.cast(centre, dtype=types.INT32)
        sigma = (draw.uniform("smoothmix sigma") * (high - low) + low) * size.node[:1]
        sigma = fn.cast(sigma, dtype=types.FLOAT)
        numbers, means = draw.first(types.Constant(_NUMBERS)), []
        for axis in range(2):
            pixels = _pixels(numbers, size, axis)
            weights = _gaussian(pixels, centre[:, axis : axis + 1], sigma)
            means.append(fn.reductions.mean(weights, axes=[1], keep_dims=True))
        lam = 1.0 - fn.cast(means[0], dtype=types.FLOAT64) * means[1]
        drawn = (centre[:, :1], centre[:, 1:], fn.reinterpret(sigma, dtype=types.INT32))
        return Rows(lam, numbers=drawn)

    def weights(self, part: Part) -> tuple[DataNode, DataNode]:
        """Returns the Gaussian along each axis."""
        sigma = fn.reinterpret(part.numbers[2:], dtype=types.FLOAT)
        numbers = part.constant(_NUMBERS)
        down, across = (
            _gaussian(_pixels(numbers, part.size, axis), part.numbers[axis], sigma)
            for axis in range(2)
        )
        return down, across


@states("The images must have at most 16,384 pixels a side for SmoothMix.")
def _pixels(numbers: DataNode, size: Size, axis: int) -> DataNode:
    """Returns 0, 1, … for the pixels along an axis, float32 (H,) or (W,)."""
    return fn.slice(numbers, start=[0], shape=size.node[axis : axis + 1], axes=[0])


def _gaussian(pixels: DataNode, centre: DataNode, sigma: DataNode) -> DataNode:
    distance = (pixels - centre) / sigma
    return dmath.exp(distance * distance * -0.5)
