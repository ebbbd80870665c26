from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_cutmix import MixConfig


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "`num_classes` must be at least 1, got 0"),
        ({"num_classes": 2.0}, TypeError, "`num_classes` must be an int, got 2.0"),
        ({"num_classes": True}, TypeError, "`num_classes` must be an int, got True"),
        (
            {"cutmix_alpha": -0.1},
            ValueError,
            r"`cutmix_alpha` must be 0 or in \[1e-6, 1e6\], got -0.1",
        ),
        ({"cutmix_alpha": math.nan}, ValueError, "`cutmix_alpha` must be finite"),
        ({"cutmix_alpha": math.inf}, ValueError, "`cutmix_alpha` must be finite"),
        ({"cutmix_alpha": 1e-50}, ValueError, r"must be 0 or in \[1e-6, 1e6\], got 1e-50"),
        ({"cutmix_alpha": 10**400}, ValueError, "`cutmix_alpha` must be finite"),
        ({"cutmix_alpha": "1"}, TypeError, "`cutmix_alpha` must be a number, got '1'"),
        ({"cutmix_alpha": 0}, ValueError, "nothing would be mixed"),
        ({"mixup_alpha": -1}, ValueError, r"`mixup_alpha` must be 0 or in \[1e-6, 1e6\], got -1"),
        ({"switch_prob": 2}, ValueError, r"`switch_prob` must be in \[0, 1\], got 2"),
        ({"minmax": 0.5}, TypeError, "`minmax` must be 2 numbers, got 0.5"),
        ({"minmax": (0.1, "1")}, TypeError, "`minmax` must be a number, got '1'"),
        ({"minmax": (0.5, 0.5)}, ValueError, "`minmax` must be .* with 0 <= lo < hi <= 1"),
        ({"minmax": (0.2, 1.1)}, ValueError, "`minmax` must be .* with 0 <= lo < hi <= 1"),
        (
            {"minmax": (0.2, 0.8), "cutmix_alpha": 0.5},
            ValueError,
            "`cutmix_alpha` must be left out with `minmax`, got 0.5",
        ),
        ({"minmax": (0.2, 0.8), "box": "timm"}, ValueError, "`box` must be left out with `minmax`"),
        (
            {"minmax": (0.2, 0.8), "correct_lam": False},
            ValueError,
            "`correct_lam` must be left out with `minmax`, got False",
        ),
        ({"mode": "pair"}, ValueError, '`partner` must be "flip" with `mode="pair"`, got "perm'),
        ({"prob": -0.01}, ValueError, r"`prob` must be in \[0, 1\], got -0.01"),
        ({"prob": 1.01}, ValueError, r"`prob` must be in \[0, 1\], got 1.01"),
        ({"prob": math.nan}, ValueError, "`prob` must be finite, got nan"),
        ({"label_smoothing": 1.5}, ValueError, r"`label_smoothing` must be in \[0, 1\]"),
        ({"label_smoothing": None}, TypeError, "`label_smoothing` must be a number"),
        ({"correct_lam": 1}, TypeError, "`correct_lam` must be a bool, got 1"),
        (
            {"mode": "sample"},
            ValueError,
            '`mode` must be one of "elem", "batch", "pair", got \'sample\'',
        ),
        (
            {"box": "square"},
            ValueError,
            '`box` must be one of "paper", "timm", "torchvision", "inside", got',
        ),
        ({"partner": "random"}, ValueError, '`partner` must be one of "permutation", "derange'),
        ({"targets": "hard"}, ValueError, '`targets` must be one of "soft", "pair", got'),
        ({"labels": "str"}, ValueError, '`labels` must be one of "int", "float", got'),
        ({"targets": "pair", "labels": "float"}, ValueError, "a pair holds two class indices"),
        ({"targets": "pair", "label_smoothing": 0.1}, ValueError, "smooth in the loss instead"),
        ({"labels": "float", "label_smoothing": 0.1}, ValueError, "rows are mixed as given"),
    ],
)
def test_wrong_options_are_refused_with_the_remedy(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MixConfig(**{"num_classes": 10, **options})


def test_numpy_numbers_are_numbers() -> None:
    cfg = MixConfig(num_classes=np.int64(5), prob=np.float32(0.5), minmax=[np.float64(0.25), 1])
    assert cfg == MixConfig(num_classes=5, prob=0.5, minmax=(0.25, 1.0))
    assert type(cfg.num_classes) is int
    assert type(cfg.prob) is float


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="cutmix_alfa"):
        MixConfig(num_classes=10, cutmix_alfa=1.0)  # type: ignore[call-arg]


def test_a_config_is_a_value() -> None:
    cfg = MixConfig(num_classes=10)
    assert cfg == MixConfig(num_classes=10, cutmix_alpha=1.0, label_smoothing=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.prob = 0.5  # type: ignore[misc]


def test_from_timm_takes_timms_names_and_defaults() -> None:
    cfg = MixConfig.from_timm(label_smoothing=0.1, num_classes=10)
    assert cfg == MixConfig(
        num_classes=10,
        mixup_alpha=1.0,
        cutmix_alpha=0.0,
        prob=1.0,
        switch_prob=0.5,
        mode="batch",
        label_smoothing=0.1,
        partner="flip",
        box="timm",
    )
    cfg = MixConfig.from_timm(
        mixup_alpha=0.0,
        cutmix_alpha=0.3,
        cutmix_minmax=[0.2, 0.8],
        prob=0.5,
        switch_prob=0.1,
        mode="elem",
        correct_lam=False,
        label_smoothing=0,
        num_classes=3,
    )
    # as timm has it, minmax turns CutMix on and always corrects lam
    assert cfg == MixConfig(
        num_classes=3,
        prob=0.5,
        switch_prob=0.1,
        mode="elem",
        minmax=(0.2, 0.8),
        partner="flip",
    )


def test_from_timm_refuses_what_timm_does_not_know_and_asks_for_the_smoothing() -> None:
    with pytest.raises(TypeError, match="`alfa`, `beta`: no option of timm's Mixup"):
        MixConfig.from_timm(beta=1.0, alfa=1.0, label_smoothing=0.0)
    with pytest.raises(TypeError, match=r"timm smooths by 0\.1 where"):
        MixConfig.from_timm(cutmix_alpha=1.0)
    with pytest.raises(ValueError, match=r"`multi_label` must be False, .* use MixConfig with"):
        MixConfig.from_timm(multi_label=True, label_smoothing=0.0)
    MixConfig.from_timm(multi_label=False, label_smoothing=0.0)
    with pytest.raises(TypeError, match="`minmax` must be 2 numbers, got 5"):
        MixConfig.from_timm(cutmix_minmax=5, label_smoothing=0.0)
    with pytest.raises(ValueError, match="`mixup_alpha` must be 0 or in"):
        MixConfig.from_timm(mixup_alpha=-1, label_smoothing=0.0)


YAML = """
model: resnet50
augmentation:
  mixup_alpha: 0.2
  cutmix_alpha: 1.0
  prob: 0.7
  mode: pair
  label_smoothing: 0.1
  num_classes: 7
"""


def test_from_yaml_reads_a_file_or_a_text(tmp_path: Path) -> None:
    expected = MixConfig.from_timm(
        mixup_alpha=0.2, cutmix_alpha=1.0, prob=0.7, mode="pair", label_smoothing=0.1, num_classes=7
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(YAML)
    assert MixConfig.from_yaml(YAML) == expected
    assert MixConfig.from_yaml(path) == expected
    assert MixConfig.from_yaml(str(path)) == expected
    odd = tmp_path / "run: 1.yaml"
    odd.write_text(YAML)
    assert MixConfig.from_yaml(odd) == expected


# Of the 150 options that timm's train.py writes to args.yaml.
ARGS = """
aa: rand-m9-mstd0.5-inc1
aug_splits: 0
bce_loss: false
cutmix: 1.0
cutmix_minmax: null
data_dir: /data/imagenet
mixup: 0.2
mixup_mode: elem
mixup_off_epoch: 0
mixup_prob: 0.9
mixup_switch_prob: 0.4
num_classes: null
smoothing: 0.05
"""


def test_from_yaml_reads_what_timms_train_py_writes(tmp_path: Path) -> None:
    path = tmp_path / "args.yaml"
    path.write_text(ARGS)
    expected = MixConfig.from_timm(
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        prob=0.9,
        switch_prob=0.4,
        mode="elem",
        label_smoothing=0.05,
    )
    assert MixConfig.from_yaml(path) == MixConfig.from_yaml(ARGS) == expected
    with pytest.warns(UserWarning, match="`loader.mixing = False` from epoch 250 on"):
        ends = MixConfig.from_yaml(ARGS.replace("mixup_off_epoch: 0", "mixup_off_epoch: 250"))
    assert ends == expected
    short = MixConfig.from_yaml("mixup: 0.8\nnum_classes: 10\n")  # as for --config
    assert short == MixConfig.from_timm(mixup_alpha=0.8, label_smoothing=0.1, num_classes=10)
    boxes = MixConfig.from_yaml("{mixup: 0, cutmix: 0, cutmix_minmax: [0.2, 0.8], smoothing: 0}")
    assert boxes.minmax == (0.2, 0.8)
    assert boxes.mixup_alpha == 0
    both = "cutmix: 1.0\naugmentation: {mixup_alpha: 1.0, label_smoothing: 0}\n"
    assert MixConfig.from_yaml(both).cutmix_alpha == 0  # its own form goes first


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (ARGS.replace("1.0", "0.0").replace("0.2", "0.0"), ValueError, "mixes nothing.*mix=None"),
        ("{mixup: 0, cutmix: 0.0, cutmix_minmax: null}", ValueError, "mixes nothing.*`mix=None`"),
        ("cutmix: high\nsmoothing: 0\n", TypeError, "`cutmix_alpha` must be a number, got 'high'"),
        ("cutmix: 1.0\nsmoothing: 2\n", ValueError, "`label_smoothing` must be in"),
        ("augmentation: {mixup: 1, label_smoothing: 0}", TypeError, "`mixup`: no option of timm"),
        ("augmentation: {mixup_alpha: 1}", TypeError, "`label_smoothing` must be given"),
        ("augmentation: {prob: high, label_smoothing: 0}", TypeError, "`prob` must be a number"),
        ("training: {mixup_alpha: 1}", ValueError, "must have a mapping `augmentation:`"),
        ("augmentation: [1, 2]\n", ValueError, "must have a mapping `augmentation:`"),
        ("augmentation: {a: [}\n", ValueError, "must be valid YAML"),
        ("augmentation: !!python/object/apply:os.getcwd []\n", ValueError, "must be valid YAML"),
        ("/no/where.yaml", FileNotFoundError, "/no/where.yaml"),
        ("augmentation:", ValueError, "must have a mapping `augmentation:`"),
        (b"augmentation:", TypeError, "`path_or_text` must be a path or a text"),
    ],
)
def test_from_yaml_refuses_with_the_name(text: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MixConfig.from_yaml(text)
