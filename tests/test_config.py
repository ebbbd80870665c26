from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from dali_cutmix import MixConfig


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "`num_classes` must be at least 1, got 0"),
        ({"num_classes": 2.0}, TypeError, "`num_classes` must be an int, got 2.0"),
        ({"num_classes": True}, TypeError, "`num_classes` must be an int, got True"),
        ({"cutmix_alpha": -0.1}, ValueError, "`cutmix_alpha` must be finite and at least 0"),
        ({"cutmix_alpha": math.nan}, ValueError, "`cutmix_alpha` must be finite"),
        ({"cutmix_alpha": math.inf}, ValueError, "`cutmix_alpha` must be finite"),
        ({"cutmix_alpha": "1"}, TypeError, "`cutmix_alpha` must be a number, got '1'"),
        ({"cutmix_alpha": 0}, ValueError, "nothing would be mixed"),
        ({"prob": -0.01}, ValueError, r"`prob` must be in \[0, 1\], got -0.01"),
        ({"prob": 1.01}, ValueError, r"`prob` must be in \[0, 1\], got 1.01"),
        ({"prob": math.nan}, ValueError, r"`prob` must be in \[0, 1\], got nan"),
        ({"label_smoothing": 1.5}, ValueError, r"`label_smoothing` must be in \[0, 1\]"),
        ({"label_smoothing": None}, TypeError, "`label_smoothing` must be a number"),
        ({"correct_lam": 1}, TypeError, "`correct_lam` must be a bool, got 1"),
        ({"mode": "sample"}, ValueError, '`mode` must be one of "elem", "batch", got \'sample\''),
        ({"box": "square"}, ValueError, '`box` must be one of "paper", got'),
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


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="cutmix_alfa"):
        MixConfig(num_classes=10, cutmix_alfa=1.0)  # type: ignore[call-arg]


def test_a_config_is_a_value() -> None:
    cfg = MixConfig(num_classes=10)
    assert cfg == MixConfig(num_classes=10, cutmix_alpha=1.0, label_smoothing=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.prob = 0.5  # type: ignore[misc]
