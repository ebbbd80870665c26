"""Recipe: what is done to images and labels, and how a network is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dali_cutmix._validation import (
    checked_choice,
    checked_fraction,
    checked_int,
    checked_number,
    checked_numbers,
    set_checked,
)
from dali_cutmix.augment.policies import (
    Policy,
    RandomErasing,
)
from dali_cutmix.mixing.config import MixConfig

Interpolation = Literal["bilinear", "bicubic", "random"]
Loss = Literal["ce", "bce"]
Optimizer = Literal["sgd", "nesterov", "adamw", "lamb"]
Schedule = Literal["cosine", "step"]

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Recipe", "checked_tail_alpha"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_SIDE = 2**15
_MOST_ALPHA = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done to images and labels, and how a network is trained on them.

    The defaults are those of a loader without a recipe: random resized crop and flip as
    torchvision has them, and nothing mixed.

    Args:
        name, title: what it is called.
        mix: how samples are mixed; None for not at all.
        augment: applied one after the other, after the flip.
        erase: random erasing, on the normalised image; None for none.
        erase_after_mix: whether erasing comes after mixing (timm's loader) or before it (DeiT and
            its kin, torchvision).
        partners: ``"tail"``: images are mixed with those of a second reader, in which rare classes
            come more often (CMO), see `train_loader`; None: with others of their batch.
        tail_alpha: how much more often.
        unmixed_epochs: epochs at the beginning and at the end that are not mixed, for a training
            script: it makes the loader with ``switchable=True`` and sets `Loader.mixing`.
        repeats: how often each image that is read comes in a batch, each time augmented anew
            (repeated augmentation). An epoch keeps its number of batches, and so sees only
            1 / repeats of the images.
        size: side, or (H, W), of training images.
        area, ratio: range of the crop's fraction of the image, and of its width by its height.
        interpolation: ``"bilinear"``, ``"bicubic"``, or ``"random"``: one of the two per image.
        hflip: probability of a horizontal flip.
        val_size, val_resize: validation resizes the shorter side to `val_resize` and crops the
            centre of `val_size`.
        val_interpolation: ``"bilinear"`` or ``"bicubic"``.
        mean, std: of red, green and blue, for images in [0, 1]. For other images the loaders are
            given those of their channels.
        loss: ``"ce"``, cross entropy, or ``"bce"``, binary cross entropy, on the mixed targets.
        target_threshold: of the binary cross entropy, see `losses.binary_cross_entropy`.
        loss_smoothing: label smoothing in the loss (``mix.label_smoothing`` is that of targets).
        epochs, batch_size, optimizer, weight_decay, drop_path: for a training script.
        lr, warmup_lr, min_lr: likewise, for `batch_size` images per step, of all processes.
        schedule, steps, warmup_epochs: likewise; ``"step"`` divides by 10 after each epoch in
            `steps`, or where there are none after each quarter of all.
        decay_all: whether biases and norms decay too.
        ema_decay: per step; None where no weights are averaged.
        clip_grad: largest norm of all gradients.
        sources: where the numbers are from, by field.

    Raises:
        TypeError, ValueError: a value is wrong.
    """

    name: str = "plain"
    title: str = "Random resized crop and flip"
    mix: MixConfig | None = None
    augment: tuple[Policy, ...] = ()
    erase: RandomErasing | None = None
    erase_after_mix: bool = False
    partners: Literal["tail"] | None = None
    tail_alpha: float = 1.0
    unmixed_epochs: tuple[int, int] = (0, 0)
    repeats: int = 1
    size: int | tuple[int, int] = 224
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    hflip: float = 0.5
    val_size: int | tuple[int, int] = 224
    val_resize: int = 256
    val_interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    loss: Loss = "ce"
    target_threshold: float | None = None
    loss_smoothing: float = 0.0
    epochs: int = 90
    batch_size: int = 256
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    decay_all: bool = False
    schedule: Schedule = "cosine"
    steps: tuple[int, ...] = ()
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    min_lr: float = 0.0
    ema_decay: float | None = None
    drop_path: float = 0.0
    clip_grad: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("name", "title"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"`{name}` must be a text, got {getattr(self, name)!r}.")
        if not isinstance(self.sources, Mapping):
            raise TypeError(f"`sources` must be a mapping, got {self.sources!r}.")
        if self.mix is not None and not isinstance(self.mix, MixConfig):
            raise TypeError(f"`mix` must be a MixConfig or None, got {self.mix!r}.")
        if self.erase is not None and not isinstance(self.erase, RandomErasing):
            raise TypeError(f"`erase` must be a RandomErasing or None, got {self.erase!r}.")
        augment = self.augment
        if isinstance(augment, get_args(Policy)):
            augment = (augment,)  # one policy, for the tuple of it
        if not isinstance(augment, (tuple, list)):
            raise TypeError(f"`augment` must be a sequence of policies, got {augment!r}.")
        for policy in augment:
            if not isinstance(policy, get_args(Policy)):
                known = ", ".join(known_type.__name__ for known_type in get_args(Policy))
                raise TypeError(f"`augment` must hold policies ({known}), got {policy!r}.")
        set_checked(self, "augment", tuple(augment))
        if not isinstance(self.erase_after_mix, bool):
            raise TypeError(f"`erase_after_mix` must be a bool, got {self.erase_after_mix!r}.")
        self._check_partners()
        set_checked(self, "repeats", checked_int("repeats", self.repeats, 1))
        for name in ("size", "val_size"):
            set_checked(self, name, _checked_size(name, getattr(self, name)))
        set_checked(self, "val_resize", checked_int("val_resize", self.val_resize, 1, _MAX_SIDE))
        for name in ("area", "ratio"):
            low, high = checked_numbers(name, getattr(self, name), 2)
            if not 0 < low <= high:
                raise ValueError(
                    f"`{name}` must be (low, high) with 0 < low <= high, got {(low, high)}."
                )
            set_checked(self, name, (low, high))
        if self.area[1] > 1:
            raise ValueError(f"`area` must be within (0, 1], got {self.area}.")
        checked_choice("interpolation", self.interpolation, get_args(Interpolation))
        checked_choice("val_interpolation", self.val_interpolation, ("bilinear", "bicubic"))
        set_checked(self, "hflip", checked_fraction("hflip", self.hflip))
        for name in ("mean", "std"):
            set_checked(self, name, checked_numbers(name, getattr(self, name), 3))
        if not 0 <= min(self.mean) <= max(self.mean) <= 1:
            raise ValueError(
                f"`mean` must be in [0, 1], for images in [0, 1], got {self.mean}: divide by 255."
            )
        # (1 - mean) / std then is finite in float16 too.
        if not all(1e-4 <= number <= 1e4 for number in self.std):
            raise ValueError(
                f"`std` must be in [1e-4, 1e4], got {self.std}: it is of images in [0, 1]."
            )
        self._check_training()

    def _check_partners(self) -> None:
        if self.partners is not None:
            checked_choice("partners", self.partners, ("tail",))
            if self.mix is None:
                raise ValueError('`partners` must be None where `mix` is None, got "tail".')
        set_checked(self, "tail_alpha", checked_tail_alpha(self.tail_alpha))
        given: Any = self.unmixed_epochs
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise TypeError(f"`unmixed_epochs` must be two ints, (first, last), got {given!r}.")
        epochs = tuple(checked_int("unmixed_epochs", number, 0) for number in given)
        set_checked(self, "unmixed_epochs", epochs)

    def _check_training(self) -> None:
        checked_choice("loss", self.loss, get_args(Loss))
        checked_choice("optimizer", self.optimizer, get_args(Optimizer))
        checked_choice("schedule", self.schedule, get_args(Schedule))
        if not isinstance(self.decay_all, bool):
            raise TypeError(f"`decay_all` must be a bool, got {self.decay_all!r}.")
        if self.target_threshold is not None:
            checked_fraction("target_threshold", self.target_threshold)
        checked_fraction("loss_smoothing", self.loss_smoothing)
        for name in ("epochs", "batch_size"):
            checked_int(name, getattr(self, name), 1)
        checked_int("warmup_epochs", self.warmup_epochs, 0)
        if not isinstance(self.steps, (tuple, list)):
            raise TypeError(f"`steps` must be epochs, got {self.steps!r}.")
        set_checked(self, "steps", tuple(checked_int("steps", epoch, 1) for epoch in self.steps))
        for name in ("lr", "weight_decay", "warmup_lr", "min_lr"):
            if checked_number(name, getattr(self, name)) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        checked_fraction("drop_path", self.drop_path)
        if self.ema_decay is not None:
            checked_fraction("ema_decay", self.ema_decay)
        if self.clip_grad is not None and checked_number("clip_grad", self.clip_grad) <= 0:
            raise ValueError(f"`clip_grad` must be above 0, got {self.clip_grad}.")


def checked_tail_alpha(alpha: Any) -> float:
    """Returns the exponent of `tail_alpha`, in [0, 4]."""
    number = checked_number("tail_alpha", alpha)
    if not 0 <= number <= _MOST_ALPHA:
        raise ValueError(f"`tail_alpha` must be in [0, {_MOST_ALPHA}], got {alpha}.")
    return number


def _checked_size(name: str, size: Any) -> int | tuple[int, int]:
    if not isinstance(size, (tuple, list)):
        return checked_int(name, size, 1, _MAX_SIDE)
    if len(size) != 2:
        raise ValueError(f"`{name}` must be an int or (H, W), got {size!r}.")
    height, width = (checked_int(name, side, 1, _MAX_SIDE) for side in size)
    return height, width
