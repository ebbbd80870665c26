"""Mosaic: four images meet at a point of the output, each shows the part that lies on its side.

Rule      the image and three partners lie top left, top right, bottom left and bottom right of a
          point, none of them resized: each has a corner there and is cut off at the output's edge.
          The output is thereby a window, as large as an image, of all four beside each other. Along
          each axis of S pixels the point is uniform in [int(lo * S), int(hi * S)). The label is
          that of all four by their areas; boxes move with their image and are clipped to its part
Paper     Bochkovskiy et al. 2020, "YOLOv4: Optimal Speed and Accuracy of Object Detection"
Peers     keras-cv 0.9's Mosaic has the layout, the range and the labels, but resamples the window,
          and does not clip boxes where the next image begins. Ultralytics (8.4.190) makes all of it
          twice as large, with the point uniform in the middle half, and cuts the output from it by
          a random perspective: without one (`degrees`, `translate`, `scale` and `shear` 0) it is
          this with centre (0, 1), bit for bit. Its boxes then are those by keep[1] 0.1 of
          `mix_boxes`, without those of up to 2 pixels, or 100 times as long as wide; it takes the
          tenth of what of a box fits on the larger canvas
Defaults  centre (0.25, 0.75), as keras-cv; DALI's YOLOv4 example has (0.2, 0.8)
Partners  three permutations of the batch drawn apart, so an image may come twice, as in both peers;
          with ``partner="derangement"`` none meets itself, but two partners may be the same
Cost      two more gathered copies of the batch than CutMix, none where the order is not kept
When      detection: four contexts in an image, smaller objects beside large ones. Ultralytics
          switches it off for the last 10 epochs (`Loader.mixing`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dali_cutmix._validation import checked_numbers, set_checked
from dali_cutmix.mixing import boxes, tiles
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Rows, Size

__all__ = ["Mosaic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic(Method):
    """Mosaic of four images (Bochkovskiy et al. 2020).

    Args:
        centre: (lo, hi) with 0 <= lo < hi <= 1, between which the point where the four meet is
            uniform along each axis, in parts of its length.

    Raises:
        TypeError, ValueError: `centre` is no such pair.

    >>> Mosaic().centre
    (0.25, 0.75)
    """

    centre: tuple[float, float] = (0.25, 0.75)
    tiles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        low, high = checked_numbers("centre", self.centre, 2)
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"`centre` must be (lo, hi) with 0 <= lo < hi <= 1, got {self.centre!r}."
            )
        set_checked(self, "centre", (low, high))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns the bottom right region as the box, and lam as the top left one has it."""
        box = tiles.bottom_right(draw.uniform("mosaic centre", 2), size.node, self.centre)
        return Rows(boxes.area_fraction(box[:, :2], size.node), box)
