"""CutMix: a rectangle of the partner is pasted into the image; the label follows the area.

Rule      lam ~ Beta(alpha, alpha), side int(S * sqrt(1 - lam)) in each axis of S pixels, a uniform
          centre; the box [c - side // 2, c + side // 2) is clipped to the image, and lam is what
          then shows of the original
Volumes   likewise in three axes (Cut to the Mix, MICCAI 2024): as the side has a square root there
          too, the box takes (1 - lam) ** 1.5 before it is clipped; lam is what then shows
Paper     Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with
          Localizable Features", and the authors' code
Defaults  alpha 1, as the paper has it for ImageNet
Gain      ImageNet, ResNet-50, 300 epochs: 77.35 to 78.69 (openmixup's model zoo)
Cost      one copy of the batch, on a GPU one kernel
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, types
from nvidia.dali import math as dmath
from nvidia.dali.data_node import DataNode

from dali_cutmix._validation import (
    checked_alpha,
    checked_choice,
    checked_fraction,
    checked_numbers,
    set_checked,
)
from dali_cutmix.mixing import boxes
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.plan import Method, MixParams, Regions, Rows, Size, plan_of

__all__ = ["BoxRule", "CutMix", "area_fractions", "exact_boxes"]

BoxRule = Literal["paper", "timm", "torchvision", "inside"]
_LARGEST = 640  # pixels a side, for which the tables take 6 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMix(Method):
    """CutMix (Yun et al. 2019).

    Args:
        alpha: lam ~ Beta(alpha, alpha).
        box: rule by which lam and a position become a box, see `MixConfig`.
        minmax: (lo, hi): the sides are drawn instead, see `MixConfig`.
        max_area: the largest part of the image that a box takes, in (0, 1]: lam is drawn from the
            same distribution, of which only 1 - lam <= max_area is left. (The box of a volume then
            takes at most max_area ** 1.5.) With alpha 1, where that is uniform in [0, max_area].
        correct_lam: take lam from the clipped box, so that the label equals the pixels.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, or excludes another.

    >>> CutMix().alpha
    1.0
    """

    alpha: float = 1.0
    box: BoxRule = "paper"
    minmax: tuple[float, float] | None = None
    correct_lam: bool = True
    max_area: float = 1.0

    def __post_init__(self) -> None:
        set_checked(self, "alpha", checked_alpha("alpha", self.alpha))
        checked_choice("box", self.box, get_args(BoxRule))
        if not isinstance(self.correct_lam, bool):
            raise TypeError(f"`correct_lam` must be a bool, got {self.correct_lam!r}.")
        self._check_max_area()
        if self.minmax is None:
            return
        low, high = checked_numbers("minmax", self.minmax, 2)
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"`minmax` must be (lo, hi) with 0 <= lo < hi <= 1, got {self.minmax!r}."
            )
        set_checked(self, "minmax", (low, high))
        for name, default in (("alpha", 1.0), ("box", "paper"), ("correct_lam", True)):
            if getattr(self, name) != default:
                raise ValueError(
                    f"`{name}` must be left out with `minmax`, got {getattr(self, name)!r}: the "
                    "box is drawn without it, and lam is that of the box."
                )

    def _check_max_area(self) -> None:
        area = checked_fraction("max_area", self.max_area)
        if area == 0:
            raise ValueError(
                "`max_area` must be above 0, got 0: nothing would be cut. Pass `mix=None` to a "
                "loader, or leave mix() out, to train without."
            )
        for name, default in (("alpha", 1.0), ("minmax", None)):
            if area < 1 and getattr(self, name) != default:
                raise ValueError(
                    f"`{name}` must be left out with `max_area`, got {getattr(self, name)!r}: a "
                    "part of the uniform distribution is drawn."
                )
        set_checked(self, "max_area", area)

    def rows(self, size: Size, draw: Draw) -> Rows:
        """Returns boxes by the rule, and lam as the label shall have it."""
        axes = size.axes
        position = draw.uniform("position", axes)
        if self.minmax is not None:
            sides = draw.uniform("sides", axes)
            box = boxes.between(sides, position, size.node, self.minmax, axes=axes)
            return Rows(boxes.original_fraction(box, size.node, axes=axes), box)
        lam = draw.beta("cutmix lam", self.alpha)
        if self.max_area < 1:
            lam = 1.0 - (1.0 - lam) * draw.number(self.max_area)
        if self.box == "inside":
            box = boxes.inside(1.0 - lam, position, size.node, axes=axes)
        else:
            centre, odd = dmath.floor(position * size.node), self.box == "timm"
            box = boxes.around(1.0 - lam, centre, size.node, odd=odd, axes=axes)
        if not self.correct_lam:
            return Rows(lam, box)
        return Rows(boxes.original_fraction(box, size.node, axes=axes), box)

    @property
    def has_exact(self) -> bool:
        """Whether `exact` can draw: boxes around a centre, of a uniform lam."""
        return self.alpha == 1 and self.minmax is None and self.box != "inside" and self.correct_lam

    def exact(
        self, size: Size, draw: Draw, prob: float, enabled: DataNode | None = None
    ) -> MixParams:
        """Returns a plan per sample, drawn from the exact distribution of boxes.

        Where the size is known two tables take the place of some forty operators: the class of the
        sides, drawn by its probability, has a table by centre, of which each axis gets a row. Else
        the box is computed from the same two numbers, and is the same but for one in 100,000.

        Args:
            prob: probability that a sample is mixed.
            enabled: bool (), of each sample: where it is False the box is empty; what is drawn does
                not change.
        """
        if size.known is None or max(size.known) > _LARGEST:
            return self._computed(size, draw, prob, enabled)
        rows = self._looked_up(size.known, draw, prob)
        if enabled is not None:
            nothing = [0] * size.axes
            empty = types.Constant(np.array([nothing, size.known, size.known, nothing], np.int32))
            rows = empty + enabled * (rows - empty)
        box = fn.cat(rows[1], rows[3])
        if size.axes == 3:  # of which a table of all sides would take 17 MB for 128 a side
            box = fn.reshape(box, shape=[1, 6])
            return plan_of(Rows(boxes.original_fraction(box, size.node, axes=3), box), size)
        fractions = area_fractions(size.known)
        by_sides = types.Constant(np.stack([fractions, 1 - fractions], axis=2))
        weights = fn.slice(by_sides, start=rows[3], shape=[1, 1], axes=[0, 1])
        weights = fn.reshape(weights, shape=[1, 2])
        return MixParams(
            lam=weights[0, 0],
            box=box,
            weights=weights,
            regions=Regions(rows[:2], rows[2:]),
        )

    def _looked_up(self, size: tuple[int, ...], draw: Draw, prob: float) -> DataNode:
        """Returns rows ``(0, 0)``, ``(y, x)``, ``(H, W)``, ``(h, w)`` for each sample."""
        odd = self.box == "timm"
        probabilities, axes = exact_boxes(size, odd=odd, max_area=self.max_area)
        axes = axes[:1] if _is_square(size) else axes
        unmixed = [np.full((side, 4), [0, side, side, 0], np.int32) for side in size[: len(axes)]]
        by_class = np.concatenate([np.concatenate(axes, axis=1), np.concatenate(unmixed)[None]])
        weights = [*(prob * probabilities).tolist(), 1 - prob]
        by_centre = draw.entry("class of the box", types.Constant(by_class), weights)
        if len(axes) == 1:
            rows = draw.entries("centre", by_centre, 2)
        else:
            ends = np.cumsum(size).tolist()
            parts = [by_centre[end - side : end] for end, side in zip(ends, size, strict=True)]
            rows = fn.stack(*(draw.entry(f"centre/{i}", part) for i, part in enumerate(parts)))
        return fn.transpose(rows, perm=[1, 0])

    def _computed(self, size: Size, draw: Draw, prob: float, enabled: DataNode | None) -> MixParams:
        share = fn.reshape(draw.weight_drawn("class of the box"), shape=[1, 1])
        if prob < 1:
            share = share / types.Constant(np.array([[prob]])) if prob else share + 1.0
            share = share * (share < 1.0)  # of the others the box is empty
        if self.max_area < 1:
            share = share * types.Constant(np.array([[self.max_area]]))
        if enabled is not None:
            share = share * enabled
        axes = size.axes
        words = draw.words(*(f"centre/{i}" for i in range(axes)))
        if size.known is None:
            square = size.node[0] == size.node[1]
            words = fn.slice(
                fn.cat(words, draw.words_of_entries("centre")),
                start=fn.reshape(square * 2, shape=[1]),
                shape=[2],
                axes=[0],
            )
        elif _is_square(size.known):
            words = draw.words_of_entries("centre")
        centre = fn.cast(fn.reshape(words, shape=[1, axes]), dtype=types.INT64) * size.node >> 31
        box = boxes.around(share, centre, size.node, odd=self.box == "timm", axes=axes)
        return plan_of(Rows(boxes.original_fraction(box, size.node, axes=axes), box), size)


def _is_square(size: tuple[int, ...]) -> bool:
    """Returns whether both centres are drawn by one operator; of volumes they never are."""
    return len(size) == 2 and size[0] == size[1]


def exact_boxes(
    size: tuple[int, ...], *, odd: bool = False, max_area: float = 1.0
) -> tuple[NDArray[np.float64], list[NDArray[np.int32]]]:
    """Returns the distribution of the box around a uniform centre where lam is uniform.

    Sides are whole pixels, so they come in classes: those of sqrt(1 - lam) between two numbers at
    which a side changes. Within a class the box is a function of its centre, in each axis by
    itself. Exact, for 1 - lam = r * r has the distribution function r * r.

    Args:
        odd: an odd side keeps its last pixel, as in `boxes.around`.
        max_area: lam is uniform in [1 - max_area, 1].

    Returns:
        The probabilities of the classes, (K,), and for each axis of S pixels an array, int32
        (K, S, 4), of ``(0, start, S, side)`` by class and centre; all empty, ``(0, S, S, 0)``,
        where one side is 0.
    """
    step = 1 if odd else 2  # a side of `around` is an even number
    edges = np.unique(np.concatenate([np.arange(0, s, step) / s for s in size]))
    # Of a class that the largest side is in, a part is left.
    edges = np.append(edges[edges**2 < max_area], math.sqrt(max_area))
    middles = (edges[:-1] + edges[1:]) / 2
    axes = []
    for length in size:
        side = np.floor(middles * length / step).astype(np.int32)[:, None] * step
        centre = np.arange(length, dtype=np.int32)[None]
        start = np.maximum(centre - side // 2, 0)
        end = np.minimum(centre + (side + 1) // 2, length)
        rows = np.broadcast_arrays(0, start, length, end - start)
        axes.append(np.stack(rows, axis=2).astype(np.int32))
    empty = np.any([(axis[:, 0, 3] == 0) for axis in axes], axis=0)
    for length, axis in zip(size, axes, strict=True):
        axis[empty] = (0, length, length, 0)
    return np.diff(edges**2) / max_area, axes


def area_fractions(size: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns the share of the original that a box leaves, by its sides: (H + 1, W + 1)."""
    height, width = size
    areas = np.outer(np.arange(height + 1), np.arange(width + 1))
    return ((height * width - areas) / (height * width)).astype(np.float32)
