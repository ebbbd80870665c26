"""What to mix and how: one frozen value, checked once, when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Mode = Literal["elem", "batch"]
BoxRule = Literal["paper"]
Partner = Literal["permutation", "derangement"]
Targets = Literal["soft", "pair"]
Labels = Literal["int", "float"]

__all__ = ["MixConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """How a batch is mixed.

    Args:
        num_classes: number of classes K. May be left out only where a loader infers it from the
            folder.
        cutmix_alpha: lam ~ Beta(alpha, alpha), alpha > 0. The paper uses 1 (uniform).
        prob: probability in [0, 1] that a sample (``mode="elem"``) or the batch
            (``mode="batch"``) is mixed at all.
        mode: ``"elem"``: every sample has its own lam and box; ``"batch"``: one lam and one box
            for the whole batch, as in the paper.
        correct_lam: take lam from the clipped box, so that the label equals the pixels. ``False``
            keeps the drawn lam in the label.
        label_smoothing: epsilon in [0, 1]: off = epsilon / K, on = 1 - epsilon + epsilon / K,
            applied to both labels before they are mixed and to samples that are not mixed.
        box: rule by which lam and a centre become a box; ``"paper"`` is Yun et al. 2019.
        partner: ``"permutation"``: a uniformly random one, in which a sample may meet itself (the
            paper); ``"derangement"``: a uniformly random cyclic one, in which none does and every
            other sample is equally likely.
        targets: ``"soft"``: one float32 row of K; ``"pair"``: ``(label_a, label_b, lam)``.
        labels: what the labels given to the graph are: ``"int"`` scalars (int32 or int64) in
            [0, K), or ``"float"`` rows of K (one-hot, soft or multi-label; mixed as given).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of its range, or two arguments exclude each other.

    >>> MixConfig(num_classes=1000).cutmix_alpha
    1.0
    """

    num_classes: int | None = None
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    mode: Mode = "elem"
    correct_lam: bool = True
    label_smoothing: float = 0.0
    box: BoxRule = "paper"
    partner: Partner = "permutation"
    targets: Targets = "soft"
    labels: Labels = "int"

    def __post_init__(self) -> None:
        if self.num_classes is not None:
            _check_int("num_classes", self.num_classes, minimum=1)
        _check_number("cutmix_alpha", self.cutmix_alpha)
        if not (math.isfinite(self.cutmix_alpha) and self.cutmix_alpha >= 0):
            raise ValueError(
                f"`cutmix_alpha` must be finite and at least 0, got {self.cutmix_alpha}."
            )
        if self.cutmix_alpha == 0:
            raise ValueError(
                "`cutmix_alpha` must be above 0, got 0: nothing would be mixed. "
                "Pass `mix=None` to a loader, or leave mix() out, to train without mixing."
            )
        for name in ("prob", "label_smoothing"):
            value = getattr(self, name)
            _check_number(name, value)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
        if not isinstance(self.correct_lam, bool):
            raise TypeError(f"`correct_lam` must be a bool, got {self.correct_lam!r}.")
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("box", self.box, get_args(BoxRule))
        _check_choice("partner", self.partner, get_args(Partner))
        _check_choice("targets", self.targets, get_args(Targets))
        _check_choice("labels", self.labels, get_args(Labels))
        if self.targets == "pair" and self.labels == "float":
            raise ValueError(
                '`targets` must be "soft" with `labels="float"`, got "pair": '
                "a pair holds two class indices."
            )
        if self.targets == "pair" and self.label_smoothing:
            raise ValueError(
                '`label_smoothing` must be 0 with `targets="pair"`, got '
                f"{self.label_smoothing}: smooth in the loss instead "
                "(torch's cross_entropy has `label_smoothing`)."
            )
        if self.labels == "float" and self.label_smoothing:
            raise ValueError(
                '`label_smoothing` must be 0 with `labels="float"`, got '
                f"{self.label_smoothing}: rows are mixed as given, smooth them yourself."
            )


def _check_int(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an int, got {value!r}.")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value}.")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = ", ".join(f'"{c}"' for c in choices)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}.")
