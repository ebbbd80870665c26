"""AttentiveMix: the cells of the partner that draw most attention are pasted, at their places.

Rule      of the 7 x 7 cells of the partner the 6 of the largest attention are pasted where they
          are; of equal ones the first in rows. Cell i of an axis of S pixels is
          [floor(i * S / 7), floor((i + 1) * S / 7)). lam is what then shows of the original
Paper     Walawalkar et al. 2020, "Attentive CutMix: An Enhanced Data Augmentation Approach for Deep
          Learning Based Image Classification"
Attention by default the native saliency, see `saliency`, summed over each cell; or given,
          ``mix(…, saliency=…)``: a map of each image, of any size, of which a cell has the sum. The
          paper takes the last feature map of a trained network, 7 x 7: `dali-cutmix saliency` makes
          such maps
Defaults  6 of 7 x 7 cells, the paper's (of 32 x 32 pixels at 224)
Gain      ImageNet, ResNet-50, 100 epochs: 76.83 to 77.28 (openmixup's model zoo; CutMix 77.17)
Cost      a copy of the batch from seven regions; where the order is kept, or beside other methods,
          two XORs of the batch with its partners and an fn.erase. Beside them what SaliencyMix's
          saliency takes: on the CPU five times CutMix's time
When      a trained network tells where the objects are. All samples are mixed by about the same
          lam, 43/49, so that labels are less varied than CutMix's; and the same cells of an image
          are pasted in every epoch, but for its crops. Not with boxes of objects
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import checked_int, set_checked
from dali_cutmix.mixing import boxes, saliency
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Beside, Found, Later, Method, Pattern, Rows, Size

__all__ = ["AttentiveMix"]

_MOST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentiveMix(Method):
    """AttentiveMix, or Attentive CutMix (Walawalkar et al. 2020).

    Args:
        cells: of the image along each axis, from 2 to 32.
        pasted: how many of them are, at least 1 and not all.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> AttentiveMix().pasted
    6
    """

    cells: int = 7
    pasted: int = 6
    shows: ClassVar[Literal["boxes"]] = "boxes"
    sees: ClassVar[Literal["saliency"]] = "saliency"

    def __post_init__(self) -> None:
        set_checked(self, "cells", checked_int("cells", self.cells, 2, _MOST))
        most = self.cells * self.cells - 1
        set_checked(self, "pasted", checked_int("pasted", self.pasted, 1, most))

    def rows(self, size: Size, draw: Draw) -> Rows:  # noqa: ARG002
        """Returns 1 where it is drawn: what is pasted depends on the partner alone."""
        ones = fn.cast(draw.true(), dtype=types.INT32)
        later = Later(ones, 1, self._most_attended)
        return Rows(fn.cast(ones, dtype=types.FLOAT64), later=(later,))

    def _boxes(self, cells: DataNode, size: Size) -> DataNode:
        """Returns cells by their numbers, int32 (K, 4), ``(y, x, h, w)``."""
        row = cells // self.cells
        place = fn.stack(row, cells - row * self.cells, axis=1)
        start, end = ((place + k) * size.node // self.cells for k in range(2))
        return fn.cat(start, end - start, axis=1)

    def _most_attended(self, columns: DataNode, beside: Beside, size: Size) -> Found:
        """Returns the cells of the largest attention, see `plan.Later`."""
        assert beside.saliency is not None
        attention = saliency.in_cells(beside.saliency[1], self.cells)
        cells = self._boxes(_largest(attention, self.cells**2, self.pasted), size)
        where = columns > 0
        cells = boxes.where(where & (boxes.area(cells) > 0), cells, size.nowhere())
        pixels = boxes.area(cells)
        covered = fn.reductions.sum(pixels, axes=[0], dtype=types.INT32, keep_dims=True)
        height, width = (fn.cast(size.node[k], dtype=types.FLOAT64) for k in range(2))
        nowhere = fn.reshape(size.nowhere(), shape=[1, 4])
        numbers = fn.reshape(cells, shape=[4 * self.pasted])
        pattern = Pattern(self, fn.reshape(where, shape=[]), numbers, 4 * self.pasted)
        return Found(nowhere, 1.0 - covered / (height * width), pattern=pattern)


def _largest(numbers: DataNode, count: int, most: int) -> DataNode:
    """Returns the indices of the largest numbers, the largest first, int32 (most,).

    Of equal ones the first. No operator sorts: the rank of each is how many come before it.
    """
    column, row = (fn.reshape(numbers, shape=shape) for shape in ([count, 1], [1, count]))
    index = np.arange(count, dtype=np.int32)
    earlier = types.Constant(index[None] < index[:, None])
    before = (row > column) | ((row == column) & earlier)
    rank = fn.reductions.sum(fn.cast(before, dtype=types.INT32), axes=[1], dtype=types.INT32)
    at = fn.reshape(rank, shape=[1, count]) == types.Constant(index[:most, None])
    return fn.reductions.sum(at * types.Constant(index[None]), axes=[1], dtype=types.INT32)
