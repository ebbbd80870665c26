"""Published training recipes as plain data, with the source of every number.

    dali-cutmix recipes              lists them
    dali-cutmix recipes rsb-a2       prints one
    train_loader(source, recipe="rsb-a2", …), val_loader(source, recipe="rsb-a2", …)

To change one: ``dataclasses.replace(recipes.get("rsb-a2"), epochs=150)``, or the argument of the
same name of a loader, which overrides the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dali_cutmix.augment.policies import (
    ColorJitter,
    Lighting,
    RandAugment,
    RandomErasing,
    ThreeAugment,
    TrivialAugmentWide,
)
from dali_cutmix.mixing.config import MixConfig
from dali_cutmix.mixing.methods import ResizeMix
from dali_cutmix.recipes.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe

__all__ = ["RECIPES", "get"]


def get(recipe: str | Recipe) -> Recipe:
    """Returns the published recipe of a name; a `Recipe` is returned as it is.

    Raises:
        ValueError: there is none of this name.
        TypeError: `recipe` is neither.

    >>> get("rsb-a2").mix.mixup_alpha
    0.1
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str):
        raise TypeError(f"`recipe` must be a name or a Recipe, got {recipe!r}.")
    if recipe not in RECIPES:
        raise ValueError(f"`recipe` must be one of {', '.join(RECIPES)}, got {recipe!r}.")
    return RECIPES[recipe]


def _crop_of(code: str) -> dict[str, tuple[Any, str]]:
    """Returns the crop, flip and colours that all of these recipes share, cited."""
    defaults = Recipe()
    names = ("area", "ratio", "hflip", "mean", "std")
    return {name: (getattr(defaults, name), code) for name in names}


def _cited(*, name: str, title: str, **values: tuple[Any, str]) -> Recipe:
    """Returns a recipe of (value, source) by field."""
    sources = {key: source for key, (_, source) in values.items()}
    numbers = {key: value for key, (value, _) in values.items()}
    return Recipe(name=name, title=title, sources=sources, **numbers)


# timm's Mixup as DeiT, Swin, ConvNeXt and RSB ran it (0.3.2 to 0.5.4): partners are the batch
# reversed, one draw for the batch of a GPU, and the paper's box; timm rounds odd sides up since.
def _timm_mix(mixup_alpha: float, label_smoothing: float) -> MixConfig:
    return MixConfig(
        mixup_alpha=mixup_alpha,
        cutmix_alpha=1.0,
        prob=1.0,
        switch_prob=0.5,
        mode="batch",
        partner="flip",
        box="paper",
        label_smoothing=label_smoothing,
    )


def _rand_augment(magnitude: int) -> RandAugment:
    # timm hands the interpolation of the crop on to the policy.
    return RandAugment.from_timm(f"rand-m{magnitude}-mstd0.5-inc1", interpolation="bicubic")


def _rsb(column: str, mixup_alpha: float, label_smoothing: float, **values: Any) -> Recipe:
    table = f"arXiv 2110.00476, table 2, {column}"
    return _cited(
        name=f"rsb-{column.lower()}",
        title=f"ResNet strikes back (Wightman et al. 2021), {column}, ResNet-50",
        mix=(
            _timm_mix(mixup_alpha, label_smoothing),
            f"{table}; prob, switch and batch mode: timm train.py, defaults",
        ),
        val_size=(224, table),
        val_resize=(235, f"{table}: test crop ratio 0.95; timm floors 224 / 0.95"),
        interpolation=("bicubic", "not in the paper; as in mmpretrain's form of the recipe"),
        val_interpolation=("bicubic", "timm resnet.py, configuration of the A1 to A3 weights"),
        loss=("bce", table),
        target_threshold=(0.2, "timm commands of followers; the authors' is not published"),
        batch_size=(2048, table),
        optimizer=("lamb", table),
        schedule=("cosine", table),
        warmup_epochs=(5, table),
        warmup_lr=(1e-4, "timm 0.5.4 train.py, default"),
        min_lr=(1e-6, "timm 0.5.4 train.py, default"),
        clip_grad=(1.0, "timm's Lamb clips the global norm at 1 by default"),
        **_crop_of("timm train.py, defaults"),
        **{key: (value, table) for key, value in values.items()},
    )


def _deit_like(name: str, title: str, code: str, **values: tuple[Any, str]) -> Recipe:
    shared = {
        **_crop_of(f"{code}: timm create_transform, defaults"),
        "mix": (_timm_mix(0.8, 0.1), code),
        "augment": (
            (_rand_augment(9),),
            f"{code}; its colour jitter is not applied, for timm leaves it out with RandAugment",
        ),
        "erase": (RandomErasing(prob=0.25, mode="pixel"), code),
        "erase_after_mix": (False, f"{code}: erased by the transforms, mixed by the training loop"),
        "size": (224, code),
        "interpolation": ("bicubic", code),
        "val_size": (224, code),
        "val_resize": (256, f"{code}, crop ratio 0.875"),
        "val_interpolation": ("bicubic", code),
        "loss": ("ce", f"{code}, SoftTargetCrossEntropy"),
        "epochs": (300, code),
        "optimizer": ("adamw", code),
        "weight_decay": (0.05, code),
        "schedule": ("cosine", code),
    }
    return _cited(name=name, title=title, **{**shared, **values})


_CLOVAAI = "clovaai/CutMix-PyTorch train.py"
_CMO = "naver-ai/cmo imagenet_train.py"
_CMO_OPTS = "naver-ai/cmo opts.py, default"
_NO_READER = "the usual one: the authors' reader of ImageNet is not in their repository"
_RESIZEMIX = "JayQine/ResizeMix configs/imagenet_res.py"
_RESIZEMIX_BASE = "JayQine/ResizeMix configs/train_base.py"
_DEIT = "facebookresearch/deit main.py"
_DEIT3 = "facebookresearch/deit README_revenge.md, deit_small_patch16_LS"
_SWIN = "microsoft/Swin-Transformer config.py"
_CONVNEXT = "facebookresearch/ConvNeXt main.py"
_V2 = "pytorch/vision issue 3995, comment 1013906621"
_V2_CODE = "pytorch/vision references/classification"

_ALL = (
    _cited(
        name="cutmix-paper",
        title="CutMix (Yun et al. 2019), ResNet-50",
        mix=(
            MixConfig(cutmix_alpha=1.0, prob=1.0, mode="batch", partner="permutation", box="paper"),
            "paper, 4.1.1; clovaai/CutMix-PyTorch README, --beta 1 --cutmix_prob 1",
        ),
        augment=(
            (ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4), Lighting(std=0.1)),
            f"{_CLOVAAI}; not in the paper's text",
        ),
        **_crop_of(f"{_CLOVAAI}: torchvision, defaults"),
        repeats=(1, _CLOVAAI),
        size=(224, _CLOVAAI),
        interpolation=("bilinear", f"{_CLOVAAI}, torchvision's default"),
        val_size=(224, _CLOVAAI),
        val_resize=(256, _CLOVAAI),
        val_interpolation=("bilinear", f"{_CLOVAAI}, torchvision's default"),
        loss=("ce", _CLOVAAI),
        epochs=(300, "paper, 4.1.1"),
        batch_size=(256, "paper, 4.1.1"),
        optimizer=("nesterov", _CLOVAAI),
        lr=(0.1, "paper, 4.1.1"),
        weight_decay=(1e-4, _CLOVAAI),
        decay_all=(True, f"{_CLOVAAI}: one group of all parameters"),
        schedule=("step", "paper, 4.1.1: after epochs 75, 150 and 225"),
    ),
    _rsb(
        "A1",
        mixup_alpha=0.2,
        label_smoothing=0.1,
        augment=(_rand_augment(7),),
        repeats=3,
        size=224,
        epochs=600,
        lr=5e-3,
        weight_decay=0.01,
        drop_path=0.05,
    ),
    _rsb(
        "A2",
        mixup_alpha=0.1,
        label_smoothing=0.0,
        augment=(_rand_augment(7),),
        repeats=3,
        size=224,
        epochs=300,
        lr=5e-3,
        weight_decay=0.02,
        drop_path=0.05,
    ),
    _rsb(
        "A3",
        mixup_alpha=0.1,
        label_smoothing=0.0,
        augment=(_rand_augment(6),),
        repeats=1,
        size=160,
        epochs=100,
        lr=8e-3,
        weight_decay=0.02,
        drop_path=0.0,
    ),
    _deit_like(
        "deit",
        "DeiT (Touvron et al. 2021), S and B",
        _DEIT,
        repeats=(3, "facebookresearch/deit samplers.py, RASampler"),
        batch_size=(1024, "facebookresearch/deit README_deit.md"),
        lr=(1e-3, f"{_DEIT}: 5e-4 for 512 images"),
        warmup_epochs=(5, _DEIT),
        warmup_lr=(1e-6, _DEIT),
        min_lr=(1e-5, _DEIT),
        ema_decay=(0.99996, f"{_DEIT}; tracked, the published weights are the plain ones"),
        drop_path=(0.1, _DEIT),
    ),
    _cited(
        name="deit3-s",
        title="DeiT III (Touvron et al. 2022), S, 800 epochs",
        mix=(_timm_mix(0.8, 0.0), _DEIT3),
        augment=(
            (ThreeAugment(), ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)),
            f"{_DEIT3}; facebookresearch/deit augment.py",
        ),
        **_crop_of("facebookresearch/deit augment.py"),
        repeats=(3, "facebookresearch/deit samplers.py, RASampler"),
        size=(224, _DEIT3),
        interpolation=("bicubic", "facebookresearch/deit augment.py"),
        val_size=(224, _DEIT3),
        val_resize=(224, f"{_DEIT3}, --eval-crop-ratio 1.0"),
        val_interpolation=("bicubic", "facebookresearch/deit datasets.py"),
        loss=("bce", _DEIT3),
        target_threshold=(0.0, "facebookresearch/deit engine.py: targets.gt(0.0)"),
        epochs=(800, _DEIT3),
        batch_size=(2048, f"{_DEIT3}: 8 x 256"),
        optimizer=("lamb", _DEIT3),
        lr=(4e-3, f"{_DEIT3}, --unscale-lr; the paper's table 1 has 3e-3"),
        weight_decay=(0.05, f"{_DEIT3}; the paper's table 1 has 0.02"),
        schedule=("cosine", _DEIT3),
        warmup_epochs=(5, _DEIT3),
        warmup_lr=(1e-6, _DEIT3),
        min_lr=(1e-5, _DEIT),
        drop_path=(0.05, _DEIT3),
        clip_grad=(1.0, "FusedLAMB clips the global norm at 1 by default"),
    ),
    _deit_like(
        "swin-t",
        "Swin Transformer (Liu et al. 2021), T",
        _SWIN,
        repeats=(1, "paper, 4.1: no gain from repeated augmentation"),
        batch_size=(1024, "microsoft/Swin-Transformer get_started.md: 8 x 128"),
        lr=(1e-3, f"{_SWIN}: 5e-4 for 512 images"),
        warmup_epochs=(20, _SWIN),
        warmup_lr=(1e-6, f"{_SWIN}: 5e-7 for 512 images"),
        min_lr=(1e-5, f"{_SWIN}: 5e-6 for 512 images"),
        drop_path=(0.2, "configs/swin/swin_tiny_patch4_window7_224.yaml"),
        clip_grad=(5.0, f"{_SWIN}; the paper's appendix has 1"),
    ),
    _deit_like(
        "convnext-t",
        "ConvNeXt (Liu et al. 2022), T",
        _CONVNEXT,
        repeats=(1, _CONVNEXT),
        batch_size=(4096, "facebookresearch/ConvNeXt TRAINING.md: 4 x 8 x 128"),
        lr=(4e-3, _CONVNEXT),
        warmup_epochs=(20, _CONVNEXT),
        warmup_lr=(0.0, "facebookresearch/ConvNeXt utils.py"),
        min_lr=(1e-6, _CONVNEXT),
        ema_decay=(0.9999, "facebookresearch/ConvNeXt TRAINING.md"),
        drop_path=(0.1, "facebookresearch/ConvNeXt TRAINING.md"),
    ),
    _cited(
        name="torchvision-v2",
        title="torchvision's second weights (IMAGENET1K_V2), ResNet-50",
        mix=(
            MixConfig(
                mixup_alpha=0.2,
                cutmix_alpha=1.0,
                prob=1.0,
                switch_prob=0.5,
                mode="batch",
                partner="roll",
                box="torchvision",
            ),
            f"{_V2}; {_V2_CODE}/transforms.py",
        ),
        augment=((TrivialAugmentWide(),), _V2),
        erase=(
            RandomErasing(prob=0.1, mode="const", area=(0.02, 0.33), ratio=(0.3, 3.3)),
            f"{_V2}; torchvision's defaults of RandomErasing",
        ),
        erase_after_mix=(False, f"{_V2_CODE}/presets.py: erased before the batch is collated"),
        **_crop_of(f"{_V2_CODE}/presets.py"),
        repeats=(4, _V2),
        size=(176, _V2),
        interpolation=("bilinear", f"{_V2_CODE}/presets.py"),
        val_size=(224, "torchvision models/resnet.py"),
        val_resize=(232, _V2),
        val_interpolation=("bilinear", f"{_V2_CODE}/presets.py"),
        loss=("ce", f"{_V2_CODE}/train.py"),
        loss_smoothing=(0.1, _V2),
        epochs=(600, _V2),
        batch_size=(1024, f"{_V2}: 8 x 128"),
        optimizer=("sgd", f"{_V2_CODE}/train.py"),
        lr=(0.5, _V2),
        weight_decay=(2e-5, _V2),
        schedule=("cosine", _V2),
        warmup_epochs=(5, _V2),
        warmup_lr=(0.005, f"{_V2_CODE}/train.py: 0.01 of the rate"),
        ema_decay=(
            0.999966,
            f"{_V2_CODE}/train.py: 1 - 2e-5 * 8 * 128 * 32 / 600 every 32 steps",
        ),
    ),
    _cited(
        name="resizemix",
        title="ResizeMix (Qin et al. 2020), ResNet-50",
        mix=(
            MixConfig(methods=(ResizeMix(scope=(0.1, 0.8)),), mode="batch", partner="permutation"),
            f"{_RESIZEMIX}; run_apis/trainer.py: one scale per batch, there a place for each image",
        ),
        **{
            **_crop_of(_NO_READER),
            "area": ((0.08, 1.0), _RESIZEMIX_BASE),
            "mean": (IMAGENET_MEAN, _RESIZEMIX_BASE),
            "std": (IMAGENET_STD, _RESIZEMIX_BASE),
        },
        repeats=(1, _RESIZEMIX),
        size=(224, _RESIZEMIX_BASE),
        interpolation=("bilinear", f"{_RESIZEMIX_BASE}: triangular, and Lanczos to enlarge"),
        val_size=(224, _RESIZEMIX_BASE),
        val_resize=(
            256,
            _NO_READER,
        ),
        val_interpolation=("bilinear", _RESIZEMIX_BASE),
        loss=("ce", "JayQine/ResizeMix run_apis/train_dist.py"),
        epochs=(300, _RESIZEMIX),
        batch_size=(512, f"{_RESIZEMIX}: 64, by 8 of scripts/train_dist.sh"),
        optimizer=("sgd", "JayQine/ResizeMix run_apis/train_dist.py"),
        lr=(0.5, _RESIZEMIX_BASE),
        min_lr=(1e-5, _RESIZEMIX_BASE),
        weight_decay=(4e-5, _RESIZEMIX),
        decay_all=(True, "JayQine/ResizeMix run_apis/train_dist.py: one group of all parameters"),
        schedule=("cosine", _RESIZEMIX_BASE),
    ),
    _cited(
        name="cmo-imagenet-lt",
        title="CMO (Park et al. 2022) for long tails, ImageNet-LT, ResNet-50, 100 epochs",
        mix=(
            MixConfig(cutmix_alpha=1.0, prob=0.5, mode="batch", box="paper"),
            f"{_CMO}; {_CMO_OPTS}",
        ),
        partners=("tail", f"{_CMO}: a WeightedRandomSampler, which draws with replacement"),
        tail_alpha=(1.0, f"{_CMO}, weight_alpha"),
        unmixed_epochs=((4, 3), f"{_CMO}: 3 < epoch < epochs - 3, epochs counted from 0"),
        augment=((ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),), _CMO),
        **_crop_of(f"{_CMO}: torchvision, defaults"),
        repeats=(1, _CMO),
        size=(224, _CMO),
        interpolation=("bilinear", f"{_CMO}, torchvision's default"),
        val_size=(224, _CMO),
        val_resize=(256, _CMO),
        val_interpolation=("bilinear", f"{_CMO}, torchvision's default"),
        loss=("ce", f"{_CMO_OPTS}; its README trains with balanced softmax (--loss_type BS)"),
        epochs=(100, "naver-ai/cmo README.md"),
        batch_size=(128, _CMO_OPTS),
        optimizer=("sgd", f"{_CMO}, momentum 0.9"),
        lr=(0.1, _CMO_OPTS),
        weight_decay=(2e-4, _CMO_OPTS),
        decay_all=(True, f"{_CMO}: one group of all parameters"),
        schedule=("step", f"{_CMO}, adjust_learning_rate"),
        steps=((60, 80), f"{_CMO}, adjust_learning_rate"),
        warmup_epochs=(5, f"{_CMO}, adjust_learning_rate: by whole epochs"),
        warmup_lr=(0.02, f"{_CMO}, adjust_learning_rate: a fifth of the rate"),
    ),
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
