"""What to mix and how: one frozen value, checked once, when it is made."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

from dali_cutmix._rules import warn
from dali_cutmix._validation import (
    checked_alpha,
    checked_bool,
    checked_choice,
    checked_fraction,
    checked_int,
    set_checked,
)
from dali_cutmix.mixing.methods import METHODS, CutMix, MixUp, ObjectCutMix
from dali_cutmix.mixing.methods.cutmix import BoxRule
from dali_cutmix.mixing.pairing import GROUPED
from dali_cutmix.mixing.plan import Method

Mode = Literal["elem", "batch", "pair"]
Partner = Literal["permutation", "derangement", "flip", "roll", "same", "other"]
Targets = Literal["soft", "pair"]
Labels = Literal["int", "float"]

__all__ = ["MixConfig", "MixOptions"]

MAX_CLASSES = 2**24


class MixOptions(TypedDict, total=False):
    """Options of `MixConfig` that do not choose the method: what `cutmix` and `mixup` take too."""

    prob: float | Sequence[float]
    mode: Mode
    minmax: tuple[float, float] | None
    correct_lam: bool
    label_smoothing: float
    box: BoxRule
    partner: Partner
    targets: Targets
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """How a batch is mixed.

    Args:
        num_classes: number of classes K. May be left out only where a loader infers it from the
            folder.
        methods: what to mix by: `CutMix`, `MixUp`, `ResizeMix`, `Mosaic`, `DetectionCutMix`,
            `ObjectCutMix`, `GridMix`, `FMix`, `SmoothMix`, `Cutout`, `SaliencyMix`, `AttentiveMix`,
            `SnapMix`, one or several, each with options of its own. Left out, `cutmix_alpha`,
            `mixup_alpha`, `switch_prob`, `minmax`, `box` and `correct_lam` say it: they are the
            short form for CutMix and MixUp.
        weights: probability of each of the `methods`, where something is mixed; they must sum to
            1, and are equal if left out.
        cutmix_alpha: CutMix's lam ~ Beta(alpha, alpha); 0 turns CutMix off. The paper uses 1.
        mixup_alpha: likewise MixUp's (Zhang et al. 2018); 0, the default, turns MixUp off.
        prob: probability in [0, 1] that a sample (``mode="elem"``), a pair or the batch is mixed
            at all. With ``mode="elem"`` and integer labels also K of them: a sample is mixed with
            that of its own class, whatever its partner's is.
        switch_prob: with both methods on, the probability of CutMix rather than MixUp, where
            something is mixed.
        mode: ``"elem"``: every sample has its own lam, box and method; ``"batch"``: one for the
            whole batch, as in the papers; ``"pair"``: one for sample i and its mirror image
            N - 1 - i, which swap patches (needs ``partner="flip"``).
        minmax: (lo, hi) with 0 <= lo < hi <= 1: CutMix's box has sides drawn from
            [int(lo * S), int(hi * S)) in each axis of S pixels and lies inside the image; lam is
            that of the box (timm's cutmix_minmax). Takes the place of `cutmix_alpha` and `box`.
        correct_lam: take lam from the clipped box, so that the label equals the pixels. ``False``
            keeps the drawn lam in the label.
        label_smoothing: epsilon in [0, 1]: off = epsilon / K, on = 1 - epsilon + epsilon / K,
            applied to both labels before they are mixed and to samples that are not mixed.
        box: rule by which lam and a place become a box. side = int(S * sqrt(1 - lam)), and
            ``"paper"``: [c - side // 2, c + side // 2) around a uniform centre, clipped (Yun et
            al. 2019); ``"torchvision"``: the same; ``"timm"``: [c - side // 2,
            c + (side + 1) // 2), clipped (timm 1.0.31); ``"inside"``: uniform among the places
            where nothing needs clipping.
        partner: ``"permutation"``: a uniformly random one, in which a sample may meet itself (the
            papers); ``"derangement"``: a uniformly random cyclic one, in which none does and every
            other sample is equally likely; ``"flip"``: the batch reversed (timm); ``"roll"``: the
            sample before (torchvision). ``"same"``: a sample of the same class, or group (see
            `mix`): in each group a uniformly random cycle, so that every sample gives once and gets
            once. ``"other"``: one of another class, each as likely; one may give to several, and
            others to none. A sample that finds none is not mixed, and ``params.paired`` says so.
            Both take full batches of at most 4,096.
        targets: ``"soft"``: one float32 row of K, which sums to 1, but for `SnapMix`, whose weights
            need not; ``"pair"``: ``(label_a, label_b, lam)``.
        labels: what the labels given to the graph are: ``"int"`` scalars (int32 or int64) in
            [0, K), or ``"float"`` rows of K (one-hot, soft or multi-label; mixed as given).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of its range, or two arguments exclude each other.

    >>> MixConfig(num_classes=1000).cutmix_alpha
    1.0
    """

    num_classes: int | None = None
    methods: tuple[Method, ...] = ()
    weights: tuple[float, ...] = ()
    cutmix_alpha: float = 1.0
    mixup_alpha: float = 0.0
    prob: float | Sequence[float] = 1.0
    switch_prob: float = 0.5
    mode: Mode = "elem"
    minmax: tuple[float, float] | None = None
    correct_lam: bool = True
    label_smoothing: float = 0.0
    box: BoxRule = "paper"
    partner: Partner = "permutation"
    targets: Targets = "soft"
    labels: Labels = "int"

    def __post_init__(self) -> None:
        if self.num_classes is not None:
            set_checked(
                self, "num_classes", checked_int("num_classes", self.num_classes, 1, MAX_CLASSES)
            )
        for name in ("cutmix_alpha", "mixup_alpha"):
            set_checked(self, name, checked_alpha(name, getattr(self, name), off=True))
        if self.cutmix_alpha == 0 and self.mixup_alpha == 0:
            raise ValueError(
                "`cutmix_alpha` or `mixup_alpha` must be above 0, got 0 for both: nothing would "
                "be mixed. Pass `mix=None` to a loader, or leave mix() out, to train without."
            )
        set_checked(self, "prob", _checked_prob(self.prob))
        for name in ("switch_prob", "label_smoothing"):
            set_checked(self, name, checked_fraction(name, getattr(self, name)))
        checked_bool("correct_lam", self.correct_lam)
        checked_choice("mode", self.mode, get_args(Mode))
        checked_choice("box", self.box, get_args(BoxRule))
        checked_choice("partner", self.partner, get_args(Partner))
        checked_choice("targets", self.targets, get_args(Targets))
        checked_choice("labels", self.labels, get_args(Labels))
        if self.minmax is not None:
            self._check_minmax(self.minmax)
        self._check_methods()
        if self.mode == "pair" and self.partner != "flip":
            raise ValueError(
                f'`partner` must be "flip" with `mode="pair"`, got "{self.partner}": a pair is a '
                "sample and its mirror image. Batches are shuffled, so the pairs are random."
            )
        self._check_targets()
        if self.prob_of_class is not None:
            self._check_prob_of_class(self.prob_of_class)
        if self.tiles:
            self._check_mosaic()
        if self.avoids:
            self._check_avoiding()
        if self.by_saliency:
            self._check_saliency()
        if self.object_method is not None:
            self._check_objects()

    def _check_targets(self) -> None:
        if self.targets == "pair" and self.labels == "float":
            raise ValueError(
                '`targets` must be "soft" with `labels="float"`, got "pair": '
                "a pair holds two class indices."
            )
        if self.targets == "pair" and self.label_smoothing:
            raise ValueError(
                '`label_smoothing` must be 0 with `targets="pair"`, got '
                f"{self.label_smoothing}: smooth in the loss instead "
                "(dali_cutmix.losses.cross_entropy has `label_smoothing`)."
            )
        if self.labels == "float" and self.label_smoothing:
            raise ValueError(
                '`label_smoothing` must be 0 with `labels="float"`, got '
                f"{self.label_smoothing}: rows are mixed as given, smooth them yourself."
            )

    def _check_prob_of_class(self, prob: tuple[float, ...]) -> None:
        if self.mode != "elem":
            raise ValueError(
                f'`mode` must be "elem" with a `prob` for each class, got "{self.mode}": samples '
                "of several classes are mixed, or not, together."
            )
        if self.labels == "float":
            raise ValueError(
                '`labels` must be "int" with a `prob` for each class, got "float": a row of '
                "numbers has no class of its own."
            )
        if self.num_classes is not None and len(prob) != self.num_classes:
            raise ValueError(
                f"`prob` must be one number, or {self.num_classes}, one for each class, got "
                f"{len(prob)}."
            )

    def _check_avoiding(self) -> None:
        if sum(method.avoids for method in self.methods) > 1:
            raise ValueError("`methods` must have one DetectionCutMix at most, got several.")
        if self.mode == "pair":
            raise ValueError(
                '`mode` must be "elem" or "batch" with DetectionCutMix, got "pair": each image has '
                "boxes of its own to avoid."
            )

    def _check_saliency(self) -> None:
        if self.mode == "pair":
            raise ValueError(
                f'`mode` must be "elem" or "batch" with {self.by_saliency[0]}, got "pair": what is '
                "pasted is chosen in each image by itself, so that two do not swap it."
            )
        if self.needs_maps and self.targets == "pair":
            raise ValueError(
                '`targets` must be "soft" with SnapMix, got "pair": the weights of the two labels '
                "need not sum to 1."
            )

    def _check_objects(self) -> None:
        if self.avoids or sum(isinstance(method, ObjectCutMix) for method in self.methods) > 1:
            raise ValueError(
                "`methods` must have one ObjectCutMix at most, and no DetectionCutMix beside it: "
                "`objects` of mix() are either masks or boxes."
            )
        if self.mode == "pair":
            raise ValueError(
                '`mode` must be "elem" or "batch" with ObjectCutMix, got "pair": each image gives '
                "the box of an object of its own."
            )

    def _check_mosaic(self) -> None:
        if self.partner not in ("permutation", "derangement"):
            raise ValueError(
                '`partner` must be "permutation" or "derangement" with Mosaic, got '
                f'"{self.partner}": an image meets three others.'
            )
        if self.targets == "pair":
            raise ValueError(
                '`targets` must be "soft" with Mosaic, got "pair": four images have a label.'
            )

    def _check_minmax(self, minmax: tuple[float, float]) -> None:
        for name, only in (("cutmix_alpha", 1.0), ("box", "paper"), ("correct_lam", True)):
            if getattr(self, name) != only:
                raise ValueError(
                    f"`{name}` must be left out with `minmax`, got {getattr(self, name)!r}: the "
                    "box is drawn without it, and lam is that of the box."
                )
        set_checked(self, "minmax", CutMix(minmax=minmax).minmax)

    def _check_methods(self) -> None:
        names = ", ".join(method.__name__ for method in METHODS)
        methods: Any = self.methods
        if not isinstance(methods, Sequence) or not all(isinstance(m, METHODS) for m in methods):
            raise TypeError(f"`methods` must be a tuple of {names}, got {methods!r}.")
        set_checked(self, "methods", tuple(methods))
        if not methods:
            if self.weights != ():
                raise ValueError(
                    f"`weights` must be left out without `methods`, got {self.weights}."
                )
            return
        for field in fields(self):
            if field.name in _SHORT_FORM and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"`{field.name}` must be left out with `methods`, got "
                    f"{getattr(self, field.name)!r}: give it to the method."
                )
        weights: Any = self.weights
        if not isinstance(weights, Sequence) or isinstance(weights, str):
            raise TypeError(f"`weights` must be a tuple of numbers, got {weights!r}.")
        checked = [checked_fraction("weights", weight) for weight in weights]
        checked = checked or [1 / len(methods)] * len(methods)
        if len(checked) != len(methods) or not math.isclose(sum(checked), 1, abs_tol=1e-6):
            raise ValueError(
                f"`weights` must be {len(methods)} numbers that sum to 1, one for each of the "
                f"`methods`, got {weights!r}."
            )
        set_checked(self, "weights", tuple(checked))

    def check_second_batch(self) -> None:
        """Raises ValueError where partners cannot be those of a second batch."""
        if self.mode == "pair":
            raise ValueError('`mode` must be "elem" or "batch" with `partners`, got "pair".')
        if self.grouped:
            raise ValueError(
                f'`partner` must not be "{self.partner}" with `partners`: sample i meets sample i '
                "of the second batch."
            )
        if self.tiles:
            raise ValueError(
                "`methods` must not have Mosaic with `partners`: three partners are taken from the "
                "batch itself."
            )
        if self.avoids:
            raise ValueError(
                "`methods` must not have DetectionCutMix with `partners`: it looks at the boxes of "
                "one batch."
            )
        if self.by_saliency:
            raise ValueError(
                f"`methods` must not have {self.by_saliency[0]} with `partners`: it looks at the "
                "saliency of one batch."
            )

    @property
    def weighted_methods(self) -> tuple[tuple[Method, float], ...]:
        """The methods, each with its probability where anything is mixed."""
        if self.methods:
            return tuple(zip(self.methods, self.weights, strict=True))
        methods: list[tuple[Method, float]] = []
        if self.cutmix_alpha:
            cutmix = CutMix(
                alpha=self.cutmix_alpha,
                box=self.box,
                minmax=self.minmax,
                correct_lam=self.correct_lam,
            )
            methods.append((cutmix, self.switch_prob if self.mixup_alpha else 1.0))
        if self.mixup_alpha:
            mixup = MixUp(alpha=self.mixup_alpha)
            methods.append((mixup, 1 - self.switch_prob if self.cutmix_alpha else 1.0))
        return tuple(methods)

    @property
    def prob_of_class(self) -> tuple[float, ...] | None:
        """The probability of each class that a sample of it is mixed, where they were given."""
        return self.prob if isinstance(self.prob, tuple) else None

    @property
    def prob_of_all(self) -> float:
        """The probability that is the same for all; 1 where each class has its own."""
        return self.prob if isinstance(self.prob, float) else 1.0

    @property
    def grouped(self) -> bool:
        """Whether partners are chosen by their groups."""
        return self.partner in GROUPED

    @property
    def exact_method(self) -> CutMix | None:
        """CutMix, where every sample draws a box for itself from the exact distribution."""
        (method, _), *others = self.weighted_methods
        if self.mode == "elem" and not others and isinstance(method, CutMix):
            return method if method.has_exact else None
        return None

    @property
    def tiles(self) -> bool:
        """Whether four images may meet in one."""
        return any(method.tiles for method, _ in self.weighted_methods)

    @property
    def avoids(self) -> bool:
        """Whether the boxes of objects are needed to mix."""
        return any(method.avoids for method, _ in self.weighted_methods)

    @property
    def by_saliency(self) -> tuple[str, ...]:
        """The names of the methods that look at the saliency of images."""
        return tuple(type(method).__name__ for method, _ in self.weighted_methods if method.sees)

    @property
    def needs_maps(self) -> bool:
        """Whether maps must be given to mix."""
        return any(method.sees == "maps" for method, _ in self.weighted_methods)

    @property
    def object_method(self) -> ObjectCutMix | None:
        """The method that needs masks of objects to mix, where there is one."""
        return next((m for m in self.methods if isinstance(m, ObjectCutMix)), None)

    @property
    def always_blends(self) -> bool:
        """Whether every sample is blended, and none pasted."""
        if self.grouped:  # some may have no partner
            return False
        return self.prob == 1 and all(method.blends for method, _ in self.weighted_methods)

    @classmethod
    def from_timm(cls, **options: Any) -> MixConfig:
        """Returns the configuration that mixes as ``timm.data.Mixup(**options)`` does (1.0.31).

        Takes timm's names, with timm's defaults: mixup_alpha (1.0), cutmix_alpha (0.0),
        cutmix_minmax (None), prob (1.0), switch_prob (0.5), mode ("batch"), correct_lam (True).
        Two differ: `label_smoothing` must be given, where timm smooths by 0.1, and `num_classes`
        is None, where timm assumes 1000. Of multi_label only timm's default, False, is known.
        The result is an ordinary configuration, with ``partner="flip"`` and ``box="timm"``.

        Raises:
            TypeError: an unknown option, or no `label_smoothing`.
            ValueError: as for `MixConfig`.

        >>> MixConfig.from_timm(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.1).box
        'timm'
        """
        unknown = sorted(options.keys() - _TIMM_DEFAULTS.keys() - {"label_smoothing"})
        if unknown:
            known = ", ".join([*_TIMM_DEFAULTS, "label_smoothing"])
            names = ", ".join(f"`{name}`" for name in unknown)
            raise TypeError(f"{names}: no option of timm's Mixup that is known here, {known}.")
        if "label_smoothing" not in options:
            raise TypeError(
                "`label_smoothing` must be given: timm smooths by 0.1 where it is left out."
            )
        given = {**_TIMM_DEFAULTS, **options}
        multi_label = given.pop("multi_label")
        if not isinstance(multi_label, bool):
            raise TypeError(f"`multi_label` must be a bool, got {multi_label!r}.")
        if multi_label:
            raise ValueError(
                "`multi_label` must be False, got True: timm then smooths towards 0.5. "
                'For rows mixed as given use MixConfig with `labels="float"`.'
            )
        minmax = given.pop("cutmix_minmax")
        if minmax is None:
            return cls(**given, partner="flip", box="timm")
        given |= {"cutmix_alpha": 1.0, "correct_lam": True}  # as timm has it
        return cls(**given, partner="flip", minmax=minmax)

    @classmethod
    def from_yaml(cls, path_or_text: str | os.PathLike[str]) -> MixConfig:
        """Returns `from_timm` of the options under ``augmentation:`` in a YAML file or text.

        Or of the options that timm's train.py (1.0.31) writes to ``args.yaml`` and reads by
        ``--config``: mixup, cutmix, cutmix_minmax, mixup_prob, mixup_switch_prob, mixup_mode,
        smoothing and num_classes, with its defaults, of which `smoothing` is 0.1. Its other
        options are not read; of mixup_off_epoch a warning says what takes its place.

        A string with a line break, or a colon before a space or at its end, is text; any other is
        a path.

        Raises:
            FileNotFoundError: there is no such file.
            TypeError, ValueError: no valid YAML, no such options, none that mixes, or as for
                `from_timm`.

        >>> MixConfig.from_yaml("augmentation: {cutmix_alpha: 1.0, label_smoothing: 0}").mode
        'batch'
        """
        if isinstance(path_or_text, str) and re.search(r"\n|:( |$)", path_or_text):
            text = path_or_text
        elif isinstance(path_or_text, (str, os.PathLike)):
            try:
                with open(path_or_text, encoding="utf-8") as file:
                    text = file.read()
            except ValueError as error:  # no UTF-8, or no name that a file can have
                raise ValueError(
                    f"`path_or_text` must be a file of UTF-8 text, got {path_or_text!r}: {error}."
                ) from error
        else:
            raise TypeError(f"`path_or_text` must be a path or a text, got {path_or_text!r}.")
        import yaml  # not needed for a graph

        try:
            document = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
            # Beside YAMLError, safe_load lets through what its constructors raise: for 2001-99-99.
            raise ValueError(f"`path_or_text` must be valid YAML: {error}") from error
        if isinstance(document, dict) and "augmentation" not in document:
            if document.keys() & {"mixup", "cutmix", "cutmix_minmax"}:
                return cls.from_timm(**_options_of_train_py(document))
        options = document.get("augmentation") if isinstance(document, dict) else None
        if not isinstance(options, dict):
            raise ValueError(
                "`path_or_text` must have a mapping `augmentation:` of options, or `mixup` and "
                f"`cutmix` as timm's args.yaml, got {options!r} there."
            )
        return cls.from_timm(**{str(name): value for name, value in options.items()})


def _checked_prob(prob: Any) -> float | tuple[float, ...]:
    """Returns a probability, or one for each class as a tuple."""
    row = getattr(prob, "ndim", 0) == 1  # of NumPy or torch
    if not row and (not isinstance(prob, Sequence) or isinstance(prob, (str, bytes))):
        return checked_fraction("prob", prob)
    if len(prob) == 0:
        raise ValueError("`prob` must be one number, or one for each class, got none.")
    numbers = prob.tolist() if row else prob
    return tuple(checked_fraction("prob", number) for number in numbers)


def _options_of_train_py(document: dict[Any, Any]) -> dict[str, Any]:
    """Returns the options of timm's Mixup as timm's train.py passes them."""
    given = {name: document.get(name, default) for name, (_, default) in _TRAIN_PY.items()}
    if given["cutmix_minmax"] is None and given["mixup"] == 0 and given["cutmix"] == 0:
        raise ValueError(
            "`mixup` or `cutmix` must be above 0, or `cutmix_minmax` be given, got none: timm's "
            "train.py then mixes nothing. Pass `mix=None` to a loader."
        )
    last = document.get("mixup_off_epoch")
    if last:
        warn(
            f"`mixup_off_epoch` of {last} is for the training loop: make the loader with "
            f"switchable=True, and set `loader.mixing = False` from epoch {last} on."
        )
    return {_TRAIN_PY[name][0]: value for name, value in given.items()}


# Options of timm's train.py: what timm's Mixup calls them, and their defaults.
_TRAIN_PY: dict[str, tuple[str, Any]] = {
    "mixup": ("mixup_alpha", 0.0),
    "cutmix": ("cutmix_alpha", 0.0),
    "cutmix_minmax": ("cutmix_minmax", None),
    "mixup_prob": ("prob", 1.0),
    "mixup_switch_prob": ("switch_prob", 0.5),
    "mixup_mode": ("mode", "batch"),
    "smoothing": ("label_smoothing", 0.1),
    "num_classes": ("num_classes", None),
}
_SHORT_FORM = {
    *("cutmix_alpha", "mixup_alpha", "switch_prob", "minmax", "correct_lam", "box"),
}
_TIMM_DEFAULTS: dict[str, Any] = {
    "mixup_alpha": 1.0,
    "cutmix_alpha": 0.0,
    "cutmix_minmax": None,
    "prob": 1.0,
    "switch_prob": 0.5,
    "mode": "batch",
    "correct_lam": True,
    "num_classes": None,
    "multi_label": False,
}
