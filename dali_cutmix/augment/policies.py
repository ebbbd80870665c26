"""Augmentations before and after mixing, by the names that published recipes give them.

Plain values, checked when they are made: what is drawn, not how. `dali_cutmix.augment.graph`
has the graphs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dali_cutmix._validation import (
    checked_choice,
    checked_fraction,
    checked_int,
    checked_number,
    checked_numbers,
)

EraseMode = Literal["const", "color", "pixel"]
Interpolation = Literal["random", "bilinear", "bicubic"]

__all__ = [
    "ColorJitter",
    "Lighting",
    "Policy",
    "RandAugment",
    "RandomErasing",
    "ThreeAugment",
    "TrivialAugmentWide",
]

_MOST_LAYERS = 16  # DALI walks the graph by recursion: some 22 reach Python's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020) as timm 1.0.31 has it, with its increasing operations.

    `num_layers` times, one of 15 operations is drawn, all equally likely and with replacement, and
    applied with probability `prob`.

    Args:
        magnitude: strength of the operations; timm's ``m``.
        magnitude_std: each application draws its own strength from a normal distribution around
            `magnitude` with this deviation, clipped to [0, `magnitude_max`]; ``math.inf`` draws
            it uniformly from [0, `magnitude`). timm's ``mstd``.
        num_layers: operations per sample, at most 16; timm's ``n``.
        prob: probability that a drawn operation is applied, timm's ``p``.
        magnitude_max: largest strength, timm's ``mmax``. Up to 10 the operations stay in the ranges
            that timm states.
        interpolation: of rotations, shears and translations: ``"bilinear"``, ``"bicubic"``, or
            ``"random"``: one of the two each time, as in timm unless its transforms are made with
            another interpolation (DeiT: bicubic).

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.

    >>> RandAugment(magnitude=7).num_layers
    2
    """

    magnitude: float = 9.0
    magnitude_std: float = 0.5
    num_layers: int = 2
    prob: float = 0.5
    magnitude_max: float = 10.0
    interpolation: Interpolation = "random"

    def __post_init__(self) -> None:
        _set(self, "magnitude", _at_least_0("magnitude", self.magnitude))
        infinite = isinstance(self.magnitude_std, float) and self.magnitude_std == math.inf
        if not infinite:
            _set(self, "magnitude_std", _at_least_0("magnitude_std", self.magnitude_std))
        _set(self, "num_layers", checked_int("num_layers", self.num_layers, 1, _MOST_LAYERS))
        _set(self, "prob", checked_fraction("prob", self.prob))
        largest = checked_number("magnitude_max", self.magnitude_max)
        if largest <= 0:
            raise ValueError(f"`magnitude_max` must be above 0, got {self.magnitude_max}.")
        _set(self, "magnitude_max", largest)
        checked_choice("interpolation", self.interpolation, get_args(Interpolation))

    @classmethod
    def from_timm(cls, policy: str, interpolation: Interpolation = "random") -> RandAugment:
        """Returns the policy of one of timm's strings, such as ``"rand-m9-mstd0.5-inc1"``.

        Known are m (10 where left out), n (2), p (0.5), mstd (0; above 100: uniform), mmax (10; 0
        is 10 too) and inc, which must be 1: the operations of ``inc0``, timm's default, some of
        which get weaker as the magnitude grows, are not here.

        Raises:
            TypeError, ValueError: `policy` is no such string, or as for `RandAugment`.

        >>> RandAugment.from_timm("rand-m7-n3-mstd0.5-inc1").magnitude
        7.0
        """
        if not isinstance(policy, str):
            raise TypeError(f"`policy` must be a string of timm's, got {policy!r}.")
        name, *sections = policy.split("-")
        if name != "rand":
            raise ValueError(f'`policy` must begin with "rand-", got "{policy}".')
        given: dict[str, str] = {}
        for section in sections:
            parsed = re.fullmatch(r"(mstd|mmax|inc|m|n|p)(\d{1,9}|(?<=p|d)\d*\.?\d+)", section)
            if parsed is None or parsed[1] in given:
                raise ValueError(
                    "`policy` must have sections m, n, p, mstd, mmax and inc, each with a number "
                    f'and at most once, got "{section}" in "{policy}".'
                )
            given[parsed[1]] = parsed[2]
        if int(given.get("inc", 0)) == 0:
            raise ValueError(
                f'`policy` must have "inc1", got "{policy}": only timm\'s increasing operations '
                "are here. timm's default, without, has others."
            )
        std = float(given.get("mstd", 0))
        return cls(
            magnitude=int(given.get("m", 10)),
            magnitude_std=math.inf if std > 100 else std,
            num_layers=int(given.get("n", 2)),
            prob=float(given.get("p", 0.5)),
            magnitude_max=int(given.get("mmax", 10)) or 10,
            interpolation=interpolation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrivialAugmentWide:
    """TrivialAugment (Müller and Hutter 2021), wide, as torchvision 0.28 has it.

    One of 14 operations per sample, at one of 31 strengths and, where it has two directions, one of
    the two; all equally likely. The identity is one of the operations.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeAugment:
    """3-Augment (Touvron et al. 2022, DeiT III): grey, solarised or blurred, equally likely.

    Solarised at 128; blurred by a Gaussian of a deviation drawn from [0.1, 2) pixels. Crop, flip
    and colour jitter, which the paper has around it, are set by themselves.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorJitter:
    """torchvision's ColorJitter: brightness, contrast and saturation, in random order.

    Args:
        brightness, contrast, saturation: b >= 0; the factor is drawn from [max(0, 1 - b), 1 + b).
            With 0, the default, the operation is left out.

    There is no `hue`: DALI turns hues in another colour space than Pillow, and no recipe here
    uses it.

    Raises:
        TypeError, ValueError: an argument is no number of 0 or more.

    >>> ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4).contrast
    0.4
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _set(self, name, _at_least_0(name, getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lighting:
    """Lighting noise along the principal colours of ImageNet (Krizhevsky et al. 2012).

    Args:
        std: deviation of the three factors; 0.1 in the paper and in clovaai/CutMix-PyTorch.

    Raises:
        TypeError, ValueError: `std` is no number of 0 or more.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        _set(self, "std", _at_least_0("std", self.std))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomErasing:
    """Random erasing (Zhong et al. 2020) of normalised images, by the rule of timm 1.0.31.

    Args:
        prob: probability that a box of a sample is erased.
        mode: what the box is filled with: ``"const"``: 0, the mean of the normalised data;
            ``"color"``: one normal number a channel (timm's "rand"); ``"pixel"``: one normal
            number a channel and pixel.
        area: (lo, hi), the area of the box as a fraction of the image's, uniform.
        ratio: (lo, hi), height by width of the box, uniform in its logarithm.

    A box that does not fit is drawn again, 10 times at most, as timm and torchvision do. The
    defaults are timm's; torchvision's are ``prob=0.5, mode="const", area=(0.02, 0.33),
    ratio=(0.3, 3.3)``. timm's `count` is not here.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of its range.
    """

    prob: float = 0.25
    mode: EraseMode = "pixel"
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        _set(self, "prob", checked_fraction("prob", self.prob))
        checked_choice("mode", self.mode, get_args(EraseMode))
        low, high = checked_numbers("area", self.area, 2)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"`area` must be (lo, hi) with 0 <= lo <= hi <= 1, got {self.area!r}.")
        _set(self, "area", (low, high))
        low, high = checked_numbers("ratio", self.ratio, 2)
        if not 0 < low <= high:
            raise ValueError(f"`ratio` must be (lo, hi) with 0 < lo <= hi, got {self.ratio!r}.")
        _set(self, "ratio", (low, high))


Policy = RandAugment | TrivialAugmentWide | ThreeAugment | ColorJitter | Lighting


def _set(value: object, name: str, checked: object) -> None:
    object.__setattr__(value, name, checked)


def _at_least_0(name: str, value: Any) -> float:
    number = checked_number(name, value)
    if number < 0:
        raise ValueError(f"`{name}` must be at least 0, got {value}.")
    return number
