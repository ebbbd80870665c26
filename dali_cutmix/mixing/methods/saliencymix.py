"""SaliencyMix: CutMix whose box lies around the most salient place of the partner.

Rule      lam ~ Beta(alpha, alpha), side int(S * sqrt(1 - lam)) in each axis of S pixels; the box
          [c - side // 2, c + side // 2) around the peak c of the partner's saliency is clipped to
          the image, and pasted at the same place; lam is what then shows of the original
Paper     Uddin et al. 2021, "SaliencyMix: A Saliency Guided Data Augmentation Strategy for Better
          Regularization", and the authors' code
Saliency  by default a native one, see `saliency`, which says how near to OpenCV's it is; or given,
          ``mix(…, saliency=…)``: a map, or a point, for each image
Defaults  alpha 1; the paper mixes half of the batches, ``MixConfig(prob=0.5)``
Deviation the authors take the saliency of one image for the whole batch; here each sample has that
          of its partner, with ``mode="batch"`` too, where all boxes have one size before clipping
Gain      ImageNet, ResNet-50: 76.83 to 77.14 after 100 epochs, 77.35 to 78.46 after 300
          (openmixup's model zoo; CutMix 77.17 and 78.69)
Cost      beside CutMix's four small resizes and some eighty operators on a few numbers: on the CPU
          four times CutMix's time. On a GPU the maps are copied to the CPU, for which a batch waits
When      objects are small, or off the centre, so that CutMix would often paste background. Not
          where classes differ by texture all over the image, nor where CutMix is enough: on
          ImageNet it is no better
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import checked_alpha, set_checked
from dali_cutmix.mixing import saliency
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Beside, Found, Later, Method, Rows, Size

__all__ = ["SaliencyMix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaliencyMix(Method):
    """SaliencyMix (Uddin et al. 2021).

    Args:
        alpha: lam ~ Beta(alpha, alpha).

    Raises:
        TypeError, ValueError: `alpha` is no number in [1e-6, 1e6].

    >>> SaliencyMix().alpha
    1.0
    """

    alpha: float = 1.0
    sees: ClassVar[Literal["saliency"]] = "saliency"

    def __post_init__(self) -> None:
        set_checked(self, "alpha", checked_alpha("alpha", self.alpha))

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns half of each side; until the peak is known nothing is cut."""
        lam = draw.beta("saliencymix lam", self.alpha)
        half = fn.cast(dmath.floor(dmath.sqrt(1.0 - lam) * size.node * 0.5), dtype=types.INT32)
        # From the peak to the ends, and where these are at least, less the size: an empty box
        # begins at the far corner.
        least = size.node * ((half[:, :1] * half[:, 1:]) > 0) * -1
        columns = fn.cat(half * -1, half, least, axis=1)
        return Rows(lam * 0.0 + 1.0, later=(Later(columns, 6, _around),))


def _around(columns: DataNode, beside: Beside, size: Size) -> Found:
    """Returns the box around the peak of the partner, see `plan.Later`."""
    assert beside.saliency is not None
    _, partner = beside.saliency
    numbers = fn.reshape(columns, shape=[3, 2])
    ends = saliency.peak(partner, size) + numbers[:2]
    ends = dmath.clamp(ends, fn.reshape(numbers[2], shape=[1, 2]) + size.node, size.node)
    return Found(fn.reshape(fn.stack(ends[0], ends[1] - ends[0]), shape=[1, 4]))
