"""GridMix: the partner is seen through the holes of a grid.

Rule      patch = ceil(W / holes), as high as wide; lam ~ U(lam), and in the top left corner of each
          patch a square hole of side int(patch * sqrt(1 - lam)), at least 1 and at most patch - 1,
          clipped to the image; lam is what then shows of the original
Paper     Baek et al. 2021, "GridMix: Strong regularization through local context mapping", as
          IlyaDobrynin/GridMixup and openmixup have it
Defaults  20 holes by width, lam between 0.1 and 0.9: that code's
Deviation its crops and aspect ratios, which are off by default, are left out
Gain      ImageNet, ResNet-50, 300 epochs: 77.35 to 78.50 (openmixup's model zoo; CutMix 78.69)
Cost      CutMix's, with some forty boxes for one. Where the order is kept, as beside MixUp,
          ResizeMix and methods with masks: two XORs with the partners and an fn.erase
When      local context: every part of the image shows both. Not where objects are as small as a
          hole, and not with boxes of objects, which cannot follow a grid
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._rules import states
from dali_cutmix._validation import checked_int, checked_numbers, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Rows, Size

__all__ = ["GridMix"]

_MOST = 1024
_MOST_HEIGHT = 4  # in widths, of images whose size is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMix(Method):
    """GridMix (Baek et al. 2021).

    Args:
        holes: by the width of the image, at most half of it; or (lo, hi), between which their
            number is uniform, both included. Where the size is not known when the graph is built,
            images must be at most four times as high as wide.
        lam: (lo, hi) with 0 <= lo < hi <= 1, between which lam is uniform.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> GridMix(holes=4).lam
    (0.1, 0.9)
    """

    holes: int | tuple[int, int] = 20
    lam: tuple[float, float] = (0.1, 0.9)
    shows: ClassVar[Literal["own boxes"]] = "own boxes"

    def __post_init__(self) -> None:
        if isinstance(self.holes, (tuple, list)):
            low, high = (int(x) for x in checked_numbers("holes", self.holes, 2))
            if (low, high) != tuple(self.holes) or not 1 <= low <= high <= _MOST:
                raise ValueError(
                    "`holes` must be a whole number or (lo, hi) of two with 1 <= lo <= hi <= "
                    f"{_MOST}, got {self.holes!r}."
                )
            set_checked(self, "holes", (low, high))
        else:
            set_checked(self, "holes", checked_int("holes", self.holes, 1, _MOST))
        lowest, highest = checked_numbers("lam", self.lam, 2)
        if not 0 <= lowest < highest <= 1:
            raise ValueError(f"`lam` must be (lo, hi) with 0 <= lo < hi <= 1, got {self.lam!r}.")
        set_checked(self, "lam", (lowest, highest))

    @property
    def _range(self) -> tuple[int, int]:
        return self.holes if isinstance(self.holes, tuple) else (self.holes, self.holes)

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns the bars between the holes, and lam as they have it.

        As high or as wide as the image, they are the rest of it, and far fewer than the holes.
        """
        low, high = self._range
        holes = dmath.floor(draw.uniform("gridmix holes") * float(high - low + 1)) + float(low)
        patch = dmath.ceil(size.node[1:] / holes)
        lam = draw.uniform("gridmix lam") * (self.lam[1] - self.lam[0]) + self.lam[0]
        side = dmath.max(dmath.floor(patch * dmath.sqrt(1.0 - lam)), 1.0)
        side = dmath.min(side, patch - 1.0)
        whole = dmath.floor(size.node / patch)  # (N, 2), as what follows
        covered = whole * side + dmath.min(size.node - whole * patch, side)
        fractions = covered / fn.cast(size.node, dtype=types.FLOAT64)
        bars = self._bars(size)
        placed = _placed(draw.first(types.Constant(bars)), patch, side, size.node)
        if size.known is None:
            zero = draw.first(types.Constant(np.zeros((1, 1, 1), np.int32)))
            placed = placed + _zero_where_it_fits(zero, size, self._range[1])
        return Rows(1.0 - fractions[:, :1] * fractions[:, 1:], boxes=placed, num_boxes=len(bars))

    def _bars(self, size: Size) -> NDArray[np.int32]:
        """Returns (1, 0, k, 0) and (0, 1, 0, k) for the k-th bar of each axis: (K, 4)."""
        most = self._range[1]
        counts = most * _MOST_HEIGHT + 1, most + 1
        if size.known is not None:
            height, width = size.known
            if most > width // 2:
                raise ValueError(
                    f"`holes` must be at most half of the width of the images, got {most} for a "
                    f"width of {width}."
                )
            counts = height // -(-width // most) + 1, most + 1
        axes = np.eye(2, dtype=np.int32).repeat(counts, axis=0)
        number = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
        return np.concatenate([axes, axes * number[:, None]], axis=1)


@states(
    "The images must be at least twice as wide as GridMix has `holes`, and at most four times as "
    "high as wide: use less, or give mix() the `size`."
)
def _zero_where_it_fits(zero: DataNode, size: Size, most: int) -> DataNode:
    """Returns `zero`, int32 (1, 1, 1); fails for images with more bars, or without a hole."""
    height, width = size.node[:1], size.node[1:]
    wrong = (width < 2 * most) | (height > _MOST_HEIGHT * width)
    return fn.slice(zero, start=fn.cast(wrong, dtype=types.INT32), shape=[1], axes=[0])


def _placed(bars: DataNode, patch: DataNode, side: DataNode, size: DataNode) -> DataNode:
    """Returns where bars are, int32 (N, K, 4); of those beyond the image the empty box.

    Args:
        bars: see `GridMix`.
        patch, side: float64 (N, 1).
        size: int32 (2,), (H, W).
    """
    patch, side = (fn.expand_dims(fn.cast(x, dtype=types.INT32), axes=[2]) for x in (patch, side))
    axis = bars[:, :2]
    start = axis * side + bars[:, 2:] * patch
    sides = dmath.min(size - start, size + axis * (patch - side - size))
    empty = fn.reductions.min(sides, axes=[2], keep_dims=True) <= 0
    start = start + empty * (size - start)
    return fn.cat(start, sides * (empty ^ True), axis=2)
