"""MixUp: the two images are averaged, and so are their labels.

Rule      image = lam * a + (1 - lam) * b, with lam ~ Beta(alpha, alpha), per pixel the same
Paper     Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"
Defaults  alpha 0.2, as the paper has it for ImageNet
Rounding  uint8 images to nearest, halves to even, as NumPy, torch and timm's collate have it
Gain      ImageNet, ResNet-50, 300 epochs: 77.35 to 78.44 (openmixup's model zoo)
Cost      on the CPU two copies and a filter of two rows; on a GPU four kernels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dali_cutmix._validation import checked_alpha, set_checked
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, Rows, Size

__all__ = ["MixUp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixUp(Method):
    """MixUp (Zhang et al. 2018).

    Args:
        alpha: lam ~ Beta(alpha, alpha).

    Raises:
        TypeError, ValueError: `alpha` is no number in [1e-6, 1e6].

    >>> MixUp().alpha
    0.2
    """

    alpha: float = 0.2
    blends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_checked(self, "alpha", checked_alpha("alpha", self.alpha))

    def rows(self, size: Size, draw: Draw) -> Rows:  # noqa: ARG002  of no matter here
        """Returns lam, without a box."""
        return Rows(draw.beta("mixup lam", self.alpha))
