"""DetectionCutMix: CutMix that covers no object of the image, as Ultralytics has it.

Rule      of three areas, each drawn as CutMix's box, one is chosen at random among those that touch
          no box of the image. All boxes of the image stay; those of the partner of which at least a
          tenth is inside the area come along, clipped to it. If all three areas touch a box, or no
          box would come along, the image is not mixed
Peer      Ultralytics 8.4.190 (`cutmix`, off by default there), with its float32 and its rounding.
          It takes a hundredth, not a tenth, where it has masks of the objects
Defaults  alpha 1, 3 candidates, as there
Deviation boxes are clipped in float64, there in float32
Label     where there are labels of images: by the area, as CutMix's
Cost      beside CutMix's some forty operators on a few numbers
When      detection with few objects, or small ones: with many every area touches one, and little is
          mixed. `mix_boxes` with its own rule mixes always
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from nvidia.dali import fn, types
from nvidia.dali import math as dmath

from dali_cutmix._validation import checked_alpha, checked_int, set_checked
from dali_cutmix.mixing import boxes
from dali_cutmix.mixing.avoidance import MOST, ORDERS, resolved
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Later, Method, Rows, Size

__all__ = ["DetectionCutMix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionCutMix(Method):
    """CutMix that covers no object of the image (Ultralytics 8.4.190).

    `mix` needs the boxes for it: ``mix(…, objects=boxes)``.

    Args:
        alpha: lam ~ Beta(alpha, alpha), of each area.
        candidates: areas that are drawn, of which one is chosen; at most 64.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    >>> DetectionCutMix().candidates
    3
    """

    alpha: float = 1.0
    candidates: int = 3
    avoids: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_checked(self, "alpha", checked_alpha("alpha", self.alpha))
        set_checked(self, "candidates", checked_int("candidates", self.candidates, 1, MOST))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns areas to choose from; until then nothing is cut."""
        count = self.candidates
        lams = [draw.beta(f"detection lam/{k}", self.alpha) for k in range(count)]
        lam = fn.reshape(fn.cat(*lams, axis=1) if count > 1 else lams[0], shape=[-1, 1])
        position = fn.reshape(draw.uniform("detection position", 2 * count), shape=[-1, 2])
        areas = boxes.around(1.0 - lam, dmath.floor(position * size.node), size.node)
        order = dmath.floor(draw.uniform("detection order", count) * float(ORDERS))
        order = fn.cast(order, dtype=types.INT32)
        candidates = fn.cat(fn.reshape(areas, shape=[-1, 4 * count]), order, axis=1)
        unmixed = fn.cast(candidates[:, :1] * 0 + 1, dtype=types.FLOAT64)
        return Rows(unmixed, later=(Later(candidates, 5 * count, partial(resolved, count)),))
