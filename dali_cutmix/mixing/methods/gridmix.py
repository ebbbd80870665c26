"""GridMix: the partner is seen through the holes of a grid.

Rule      patch = ceil(W / holes), as high as wide; lam ~ U(lam), and in the top left corner of each
          patch a square hole of side int(patch * sqrt(1 - lam)), at least 1 and at most patch - 1,
          clipped to the image; lam is what then shows of the original
Paper     Baek et al. 2021, "GridMix: Strong regularization through local context mapping", as
          IlyaDobrynin/GridMixup has it, with which openmixup and PyTorch users compare
Defaults  20 holes by width, lam between 0.1 and 0.9: that code's
Deviation its crops and aspect ratios, which are off by default, are left out
Gain      ImageNet, ResNet-50, 300 epochs: 77.35 to 78.50 (openmixup's model zoo; CutMix 78.69)
Cost      two XORs of the batch with its partners, and an fn.erase
When      local context: every part of the image shows both. Not where objects are as small as a
          hole, and not with boxes of objects, which cannot follow a grid
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._graph import zero_unless
from dali_cutmix._rules import states
from dali_cutmix._validation import checked_int, checked_numbers, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Part, Rows, Size

__all__ = ["GridMix"]

_MOST = 1024
_MOST_HOLES = 2**16  # of an image whose size is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMix(Method):
    """GridMix (Baek et al. 2021).

    Args:
        holes: by the width of the image, at most half of it; or (lo, hi), between which their
            number is uniform, both included.
        lam: (lo, hi) with 0 <= lo < hi <= 1, between which lam is uniform.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> GridMix(holes=4).lam
    (0.1, 0.9)
    """

    holes: int | tuple[int, int] = 20
    lam: tuple[float, float] = (0.1, 0.9)
    shows: ClassVar[Literal["boxes"]] = "boxes"

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
        """Returns patch, hole and the numbers of columns and of holes, and lam as they have it."""
        low, high = self._range
        height, width = (size.node[k : k + 1] for k in range(2))
        holes = draw.uniform("gridmix holes") * float(high - low + 1)
        patch = dmath.ceil(width / (dmath.floor(holes) + float(low)))
        lam = draw.uniform("gridmix lam") * (self.lam[1] - self.lam[0]) + self.lam[0]
        side = dmath.max(dmath.floor(patch * dmath.sqrt(1.0 - lam)), 1.0)
        side = dmath.min(side, patch - 1.0)
        covered, counts = [], []
        for length in (height, width):
            whole = dmath.floor(length / patch)
            covered.append(whole * side + dmath.min(length - whole * patch, side))
            counts.append(dmath.ceil(length / patch))
        area = fn.cast(height, dtype=types.FLOAT64) * width
        numbers = (patch, side, counts[1], counts[0] * counts[1])
        return Rows(
            (area - covered[0] * covered[1]) / area,
            numbers=tuple(fn.cast(number, dtype=types.INT32) for number in numbers),
        )

    def boxes(self, part: Part) -> DataNode:
        """Returns the holes, int32 (K, 4), of which those at the far edges reach beyond it."""
        most, numbers, size = self._range[1], part.numbers, part.size
        if size.known is None:
            numbers, count = _wide_enough(numbers, size, most), _MOST_HOLES
        else:
            height, width = size.known
            if most > width // 2:
                raise ValueError(
                    f"`holes` must be at most half of the width of the images, got {most} for a "
                    f"width of {width}."
                )
            count = -(-height // -(-width // most)) * most
        patch, side, columns = (numbers[k] for k in range(3))
        index = fn.slice(
            part.constant(np.arange(count, dtype=np.int32)),
            start=[0],
            shape=numbers[3:],
            axes=[0],
        )
        row = index // columns
        y, x = row * patch, (index - row * columns) * patch
        sides = index * 0 + side
        return fn.stack(y, x, sides, sides, axis=1)


@states("The images must be at least twice as wide as GridMix has `holes`: give it less of them.")
def _wide_enough(numbers: DataNode, size: Size, most: int) -> DataNode:
    """Returns the numbers as they are; fails in images that have no room for the holes."""
    return numbers + zero_unless(size.node[1] < 2 * most)
