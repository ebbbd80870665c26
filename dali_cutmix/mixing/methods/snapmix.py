"""SnapMix: a part of the partner, resized into a part of the image; labels by what each shows.

Rule      two boxes, each as CutMix's: lam ~ Beta(alpha, alpha), side int(S * sqrt(1 - lam)), a
          uniform centre, clipped. The partner's box is resized into the image's. Of each image a
          map says where its class is seen (a CAM), of which the whole has mass 1: the image's label
          has weight 1 - the mass of its map in its box, the partner's that of its map in its box.
          If one of the boxes is empty nothing is mixed
Paper     Huang et al. 2021, "SnapMix: Semantically Proportional Mixing for Augmenting Fine-grained
          Data", and the authors' code
Label     the two weights NEED NOT SUM TO 1: where background covers an object both are small, where
          an object comes on background both are near 1. A loss that takes rows as they are
          (`dali_cutmix.losses.cross_entropy`) is then the authors'; a binary cross entropy is not.
          Two images of one class have in the authors' code both weights twice, so in the row
          2 * (lam + lam_partner); of float labels, whose classes cannot be told to be equal, once
Maps      ``mix(…, saliency=…)``: of each image, (h, w), any size, numbers of any scale. What is
          above a map's smallest number is its mass. A map that is all alike tells nothing: then
          the weight is by the area of the image's box. `dali-cutmix saliency` makes them
Defaults  alpha 5, as the authors have it; every image is mixed
Deviation the authors make the maps by the network in training; here they are stored, of one trained
          before. Theirs are interpolated to pixels before they are summed, here each cell counts by
          the part of it that lies in the box; and pixels are rounded, theirs are floats
Gain      CUB-200, ResNet-50: 85.49 to 87.75; FGVC-Aircraft 91.07 to 92.08 (the authors)
Cost      beside CutMix's two copies of the batch, a resize of the patches, and three hundred
          operators on a few numbers: on the CPU ten times CutMix's time
When      fine-grained classes, where a small part of the image tells them apart. Not without maps
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from nvidia.dali import fn
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import checked_alpha, set_checked
from dali_cutmix.mixing import boxes, saliency
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Beside, Found, Later, Method, Rows, Size

__all__ = ["SnapMix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapMix(Method):
    """SnapMix (Huang et al. 2021). The two weights in a label need not sum to 1.

    `mix` needs a map of each image for it: ``mix(…, saliency=maps)``.

    Args:
        alpha: each of two lams ~ Beta(alpha, alpha).

    Raises:
        TypeError, ValueError: `alpha` is no number in [1e-6, 1e6].

    >>> SnapMix().alpha
    5.0
    """

    alpha: float = 5.0
    sees: ClassVar[Literal["maps"]] = "maps"

    def __post_init__(self) -> None:
        set_checked(self, "alpha", checked_alpha("alpha", self.alpha))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns both boxes, less an empty one; until the maps are known nothing is cut."""
        found = []
        for whose in ("image", "partner"):
            lam = draw.beta(f"snapmix {whose}'s lam", self.alpha)
            centre = dmath.floor(draw.uniform(f"snapmix {whose}'s position", 2) * size.node)
            found.append(boxes.around(1.0 - lam, centre, size.node))
        mixed = (boxes.area(found[0]) > 0) & (boxes.area(found[1]) > 0)
        columns = fn.cat(*((box - size.nowhere()) * mixed for box in found), axis=1)
        return Rows(lam * 0.0 + 1.0, later=(Later(columns, 8, _by_maps),))


def _by_maps(columns: DataNode, beside: Beside, size: Size) -> Found:
    """Returns the boxes, and the weights by the maps, see `plan.Later`."""
    assert beside.saliency is not None
    own, other = beside.saliency
    both = fn.reshape(columns, shape=[2, 4]) + size.nowhere()
    box, source = both[:1], both[1:]
    by_area = boxes.area_fraction(box[:, 2:], size.node)
    covered, shown = (
        part + (has_any ^ True) * by_area
        for part, has_any in (
            saliency.mass_in(own, box, size),
            saliency.mass_in(other, source, size),
        )
    )
    return Found(box, 1.0 - covered, source, shown)
