"""Random options for every public entry point: each set of them works, or is refused by name.

Half of the sets hold a value that is wrong, or may be. A refusal is a TypeError or a ValueError
that names an option that was given, or is missing; a set of right values is refused only where two
of them exclude each other. What works has the properties that are promised.

The default is a sample. All of it, 5,000 sets for each entry point, is

    OPTION_SETS=5000 python -m pytest tests/test_options.py --hypothesis-show-statistics

which also tells how many were refused. One of a hundred takes half a minute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import json
import math
import os
import pickle
import re
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

import dali_cutmix as dcm
from dali_cutmix import losses
from dali_cutmix._rules import explain
from dali_cutmix.augment import policies
from dali_cutmix.cli import main as cli
from dali_cutmix.mixing.followers.masks import MaskType
from dali_cutmix.pipelines import imagenet
from tests import reference
from tests.data.test_sources import slim, tar_samples, write_recordio, write_tar, write_tfrecord
from tests.mixing.test_boxes import classes_of, random_boxes
from tests.mixing.test_methods import check_batch
from tests.mixing.test_patterns import check_batch as check_patterns
from tests.mixing.test_patterns import run_drawn
from tests.support import graphs
from tests.support.graphs import Array

MISSING = object()
WRONG: list[Any] = [
    MISSING,
    None,
    *(True, False, -1, 0, 1, 3, 0.5, 1.5, -0.5),
    *(math.nan, math.inf, -math.inf, 10**400, 2**31, 2**63, -(2**63), 1e300, 1e-300),
    *("x", "", " ", "recipe", "a\nb", "a\0b", "\udc80", b"x", "0.5", "größe"),
    *((), (1,), (0.2, 0.9), (0.9, 0.2), (1, 2, 3), (None, None), (math.nan, 1), [], ["x"]),
    *({}, {"a": 1}, set(), range(2), object(), print, 1j, Fraction(1, 2), Decimal("0.5")),
    *(np.float64(0.5), np.int64(3), np.float32("nan"), np.array(0.5), np.array([0.2, 0.9])),
    *(np.array([]), np.array(["x", "y"]), torch.tensor([0.2, 0.9]), torch.tensor(0.5)),
    *(dcm.MixConfig(), dcm.RandAugment(), dcm.RandomErasing(), dcm.Recipe(), dcm.Lighting()),
]


def sets(default: int) -> Callable[[Any], Any]:
    """Settings of a test: as many sets as asked for, or a sample."""
    return settings(
        max_examples=int(os.environ.get("OPTION_SETS", default)),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # to shrink a set takes minutes, and tells little more
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


class Options(dict[str, Any]):
    """Arguments by name; `spoiled` holds the names of those that are wrong, or may be."""

    spoiled: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()


@st.composite
def options(
    draw: st.DrawFn, required: dict[str, Any], optional: dict[str, Any], but: tuple[str, ...] = ()
) -> Options:
    """Draws arguments: all that are required, some of the others; none of `but` is spoiled."""
    chosen = draw(st.sets(st.sampled_from(sorted(optional)))) if optional else set()
    out = Options(
        {n: draw(s) for n, s in {**required, **optional}.items() if n in chosen or n in required}
    )
    known = sorted({*required, *optional, "colour"} - {*but})
    if draw(st.booleans()):
        out.spoiled = tuple(draw(st.lists(st.sampled_from(known), min_size=1, max_size=2)))
    for name in out.spoiled:
        value = draw(st.sampled_from(WRONG))
        if value is MISSING:
            out.pop(name, None)
        else:
            out[name] = value
    out.names = frozenset({*out, *required})
    return out


def attempt(call: Callable[..., Any], given_: Options, clash: str = "(?!)", also: str = "") -> Any:
    """Returns what the call returns; None where it is refused as it should be.

    Args:
        clash: what a refusal of right values must match.
        also: further names that a refusal may have.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mixing in a batch of")
            result = call(**given_)
    except (TypeError, ValueError) as error:
        check_refusal(str(error), given_, clash, also)
        event("refused")
        return None
    event("worked")
    return result


def assert_that(right: bool, message: str) -> None:
    assert right, message


def check_refusal(text: str, given_: Options, clash: str, also: str = "") -> None:
    named = set(re.findall(r"[`'](\w+)[`'=]", text))
    if re.match("(the index )?'/", text):  # what is wrong with a file names the file
        named.add("source")
    assert named & {*given_.names, *also.split()}, text
    assert given_.spoiled or re.search(clash, text), f"right values are refused: {text}"


# --- values

SHARE = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5]))
ALPHA = st.sampled_from([0.0, 1e-6, 0.1, 0.2, 1.0, 8.0, 1e6])
RISING = st.tuples(SHARE, SHARE).map(sorted).filter(lambda pair: pair[0] < pair[1]).map(tuple)

MIX_OPTIONS = {
    "num_classes": st.sampled_from([8, 9, 100]),
    "cutmix_alpha": ALPHA,
    "mixup_alpha": ALPHA,
    "prob": st.one_of(SHARE, SHARE, st.tuples(*[SHARE] * 8)),
    "switch_prob": SHARE,
    "mode": st.sampled_from(["elem", "elem", "batch", "pair"]),
    "minmax": RISING,
    "correct_lam": st.booleans(),
    "label_smoothing": SHARE,
    "box": st.sampled_from(["paper", "timm", "torchvision", "inside"]),
    "partner": st.sampled_from(["permutation", "derangement", "flip", "roll", "same", "other"]),
    "targets": st.sampled_from(["soft", "soft", "pair"]),
    "labels": st.sampled_from(["int", "int", "float"]),
}
MIX_CLASH = "with `minmax`|with `mode=|with `targets=|with `labels=|nothing would be mixed"
MIX_CLASH += "|with a `prob` for each class|one for each class, got|with `methods`"


def check_config(cfg: dcm.MixConfig) -> None:
    """What the rest of the package relies on, whatever was given."""
    assert cfg.num_classes is None or (type(cfg.num_classes) is int and cfg.num_classes >= 1)
    for alpha in (cfg.cutmix_alpha, cfg.mixup_alpha):
        assert type(alpha) is float
        assert alpha == 0 or 1e-6 <= alpha <= 1e6
    assert cfg.cutmix_alpha or cfg.mixup_alpha
    probs = cfg.prob if isinstance(cfg.prob, tuple) else (cfg.prob,)
    for share in (*probs, cfg.switch_prob, cfg.label_smoothing, *(cfg.minmax or ())):
        assert type(share) is float
        assert 0 <= share <= 1
    assert cfg.minmax is None or cfg.minmax[0] < cfg.minmax[1]
    check_value(cfg)


def check_value(value: Any) -> None:
    """A value equals its copies, and can be a key."""
    assert dataclasses.replace(value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert hash(value) == hash(dataclasses.replace(value))


# --- values of the package


@pytest.mark.slow
@sets(300)
@given(given_=options({}, MIX_OPTIONS))
def test_mix_config(given_: Options) -> None:
    cfg = attempt(dcm.MixConfig, given_, MIX_CLASH)
    if cfg is not None:
        check_config(cfg)
        for name, value in given_.items():
            if name not in given_.spoiled:
                assert getattr(cfg, name) == value


TIMM = {name: MIX_OPTIONS[name] for name in list(MIX_OPTIONS)[:6]}
TIMM |= {"correct_lam": st.booleans(), "cutmix_minmax": RISING, "multi_label": st.just(False)}
TIMM_REQUIRED = {"label_smoothing": SHARE}


@pytest.mark.slow
@sets(200)
@given(given_=options(TIMM_REQUIRED, TIMM))
def test_from_timm(given_: Options) -> None:
    cfg = attempt(dcm.MixConfig.from_timm, given_, MIX_CLASH, also="minmax")
    if cfg is not None:
        check_config(cfg)
        assert cfg.partner == "flip"


ABOVE_0 = RISING.filter(lambda pair: pair[0] > 0)
METHODS: dict[Any, dict[str, Any]] = {
    dcm.CutMix: {"alpha": ALPHA.filter(bool), "box": MIX_OPTIONS["box"]},
    dcm.MixUp: {"alpha": ALPHA.filter(bool)},
    dcm.ResizeMix: {"scope": ABOVE_0},
    dcm.Mosaic: {"centre": RISING},
    dcm.DetectionCutMix: {"alpha": ALPHA.filter(bool), "candidates": st.integers(1, 4)},
    dcm.GridMix: {
        "holes": st.one_of(st.integers(1, 3), st.sampled_from([(1, 3), [2, 3]])),
        "lam": RISING,
    },
    dcm.FMix: {
        "alpha": ALPHA.filter(bool),
        "decay": st.floats(0, 10),
        "fields": st.integers(1, 3),
        "seed": st.integers(0, 9),
    },
    dcm.SmoothMix: {"scope": ABOVE_0},
    dcm.Cutout: {
        "length": st.sampled_from([2, 3, 5, 10**6]),
        "fill": st.one_of(st.integers(0, 255), st.lists(st.integers(0, 255), min_size=1)),
    },
}


@pytest.mark.slow
@sets(300)
@given(
    drawn=st.sampled_from(list(METHODS)).flatmap(
        lambda kind: st.tuples(st.just(kind), options({}, METHODS[kind]))
    )
)
def test_methods(drawn: tuple[Any, Options]) -> None:
    kind, given_ = drawn
    method = attempt(kind, given_, "at most 16")
    if method is not None:
        check_value(method)


YAML_TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="[]{}:,-&*!|>'\"%@#? \n\tabn01.", max_size=30),
    st.sampled_from(
        ["", ".", "/no/where", "a\0b", "\udc80", "[" * 3000 + ": ", "x" * 5000, "1: 2001-99-99"]
    ),
    options(TIMM_REQUIRED, TIMM)
    .map(lambda o: {k: v for k, v in o.items() if type(v) in (int, float, str, bool)})
    .map(lambda o: yaml.safe_dump({"augmentation": o}, allow_unicode=True)),
    st.sampled_from(WRONG[1:]),
)


@pytest.mark.slow
@sets(200)
@given(text=YAML_TEXTS)
def test_from_yaml(text: Any) -> None:
    given_ = Options(path_or_text=text)
    given_.spoiled, given_.names = ("path_or_text",), frozenset({"path_or_text", *TIMM})
    try:
        cfg = attempt(dcm.MixConfig.from_yaml, given_, also="minmax label_smoothing colour x")
    except OSError as error:
        event("no file")
        assert_that(isinstance(text, str) and error.filename == text, str(error))
        return
    if cfg is not None:
        check_config(cfg)


POSITIVE = st.sampled_from([0.0, 1e-9, 0.1, 0.4, 1.0, 3.0, 100.0])
POLICIES: dict[Any, dict[str, Any]] = {
    dcm.RandAugment: {
        "magnitude": POSITIVE,
        "magnitude_std": st.sampled_from([0.0, 0.5, math.inf]),
        "num_layers": st.integers(1, 3),
        "prob": SHARE,
        "magnitude_max": st.sampled_from([1.0, 10.0, 30]),
        "interpolation": st.sampled_from(["bilinear", "bicubic", "random"]),
    },
    dcm.ColorJitter: dict.fromkeys(("brightness", "contrast", "saturation"), POSITIVE),
    dcm.Lighting: {"std": POSITIVE},
    dcm.TrivialAugmentWide: {},
    dcm.ThreeAugment: {},
    dcm.RandomErasing: {
        "prob": SHARE,
        "mode": st.sampled_from(["const", "color", "pixel"]),
        "area": RISING,
        "ratio": st.sampled_from([(0.3, 3.3), (1.0, 1.0), (1e-6, 1e6)]),
    },
}


@pytest.mark.slow
@sets(200)
@given(
    drawn=st.sampled_from(list(POLICIES)).flatmap(
        lambda kind: st.tuples(st.just(kind), options({}, POLICIES[kind]))
    )
)
def test_policies(drawn: tuple[Any, Options]) -> None:
    kind, given_ = drawn
    policy = attempt(kind, given_)
    if policy is not None:
        check_value(policy)
        for field in dataclasses.fields(policy):
            numbers = getattr(policy, field.name)
            for number in numbers if isinstance(numbers, tuple) else (numbers,):
                assert type(number) in (int, float, str)
                assert number == number


@sets(200)
@given(
    policy=st.one_of(
        st.sampled_from(WRONG[1:]),
        st.text(max_size=20),
        st.from_regex(r"rand(-(m|n|p|mstd|mmax|inc)[0-9.]{1,4}){0,5}-inc1", fullmatch=True),
        st.just("rand-inc1-m" + "9" * 5000),
    ),
    interpolation=st.sampled_from(["bilinear", "bicubic", "random", "random", None, 3]),
)
def test_rand_augment_from_timm(policy: Any, interpolation: Any) -> None:
    given_ = Options(policy=policy, interpolation=interpolation)
    given_.spoiled, given_.names = ("policy",), frozenset(given_)
    made = attempt(
        dcm.RandAugment.from_timm, given_, also="num_layers prob magnitude magnitude_max"
    )
    if made is not None:
        check_value(made)
        assert re.match("rand-", policy)


MIXES = options({}, {**MIX_OPTIONS, "labels": st.just("int")}).map(
    lambda o: made_or_none(dcm.MixConfig, o)
)
AUGMENTS = st.lists(
    st.sampled_from([kind for kind in POLICIES if kind is not dcm.RandomErasing]).flatmap(
        lambda kind: st.builds(kind, **POLICIES[kind])
    ),
    max_size=2,
)
ERASES = st.builds(dcm.RandomErasing, **POLICIES[dcm.RandomErasing])


def without_classes(cfg: dcm.MixConfig | None) -> bool:
    return cfg is not None and cfg.prob_of_class is None


def made_or_none(kind: Any, given_: dict[str, Any]) -> Any:
    try:
        return kind(**given_)
    except (TypeError, ValueError):
        return None


SIZE = st.one_of(st.integers(3, 24), st.tuples(st.integers(3, 20), st.integers(3, 20)))
COLORS = st.tuples(*[st.floats(0, 1)] * 3)
STDS = st.tuples(*[st.floats(1e-3, 10)] * 3)
SEEN = {
    "mix": MIXES,
    "augment": AUGMENTS,
    "erase": ERASES,
    "erase_after_mix": st.booleans(),
    "repeats": st.integers(1, 5),
    "size": SIZE,
    "area": st.sampled_from([(0.08, 1.0), (1.0, 1.0), [1e-6, 0.1]]),
    "ratio": st.sampled_from([(3 / 4, 4 / 3), (1, 1), [1e-3, 1e3]]),
    "interpolation": st.sampled_from(["bilinear", "bicubic", "random"]),
    "hflip": SHARE,
    "mean": COLORS,
    "std": STDS,
}
RECIPE_OPTIONS = SEEN | {
    "name": st.text(),
    "title": st.text(),
    "val_size": SIZE,
    "val_resize": st.integers(1, 300),
    "val_interpolation": st.sampled_from(["bilinear", "bicubic"]),
    "loss": st.sampled_from(["ce", "bce"]),
    "target_threshold": SHARE,
    "loss_smoothing": SHARE,
    "epochs": st.integers(1, 600),
    "batch_size": st.integers(1, 4096),
    "optimizer": st.sampled_from(["sgd", "nesterov", "adamw", "lamb"]),
    "lr": POSITIVE,
    "weight_decay": POSITIVE,
    "schedule": st.sampled_from(["cosine", "step"]),
    "warmup_epochs": st.integers(0, 20),
    "warmup_lr": POSITIVE,
    "min_lr": POSITIVE,
    "ema_decay": SHARE,
    "drop_path": SHARE,
    "clip_grad": st.floats(1e-3, 10),
}


@pytest.mark.slow
@sets(200)
@given(given_=options({}, RECIPE_OPTIONS))
def test_recipe(given_: Options) -> None:
    recipe = attempt(dcm.Recipe, given_)
    if recipe is not None:
        check_value(recipe)
        assert dcm.recipes.get(recipe) is recipe
        assert all(isinstance(p, policies.Policy) for p in recipe.augment)
        for name in ("lr", "weight_decay", "warmup_lr", "min_lr"):
            assert getattr(recipe, name) >= 0


@sets(60)
@given(
    recipe=st.one_of(st.sampled_from(WRONG[1:]), st.text(), st.sampled_from([*dcm.recipes.RECIPES]))
)
def test_recipes_get(recipe: Any) -> None:
    given_ = Options(recipe=recipe)
    given_.names = frozenset(given_)
    given_.spoiled = (
        () if isinstance(recipe, str) and recipe in dcm.recipes.RECIPES else ("recipe",)
    )
    found = attempt(dcm.recipes.get, given_)
    assert found is None or isinstance(found, dcm.Recipe)


# --- mix in a pipeline


@dataclasses.dataclass
class Data:
    """Images and labels for a pipeline, right or wrong."""

    images: Any
    labels: Any
    layout: str | None
    right: bool


@st.composite
def batches(draw: st.DrawFn, dtype: str, labels: str, num_classes: int) -> Data:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    count, channels = draw(st.sampled_from([2, 3, 8, 9])), draw(st.sampled_from([1, 3, 3, 4, 16]))
    size = draw(st.sampled_from([(6, 9), (9, 6), (1, 5), (8, 8), (1, 1)]))
    images = rng.integers(0, 256, (count, *size, channels), dtype=np.uint8)
    rows = rng.random((count, num_classes), dtype=np.float32)
    classes = rng.integers(0, num_classes, count).astype(draw(st.sampled_from(["int32", "int64"])))
    data = Data(images.astype(dtype), rows if labels == "float" else classes, "HWC", True)
    spoil = draw(
        st.sampled_from([None] * 6 + ["type", "axes", "channels", "range", "rows", "kind"])
    )
    if spoil is None:
        return data
    data.right = False
    if spoil == "type" and dtype == "float32":
        spoil = "axes"  # of other types than uint8 no check says which they are
    if spoil == "type":
        data.images = images.astype("int16")
    elif spoil == "axes":
        data.images, data.layout = images[..., 0], None
    elif spoil == "channels":
        data.images = np.repeat(images.astype(dtype), 17, axis=3)
    elif labels == "float":
        data.labels = np.concatenate([rows, rows], axis=1)
    elif spoil == "range":
        data.labels[draw(st.integers(0, count - 1))] = draw(st.sampled_from([-1, num_classes]))
    else:
        data.labels = data.labels.astype(np.float32)[:, None] + (spoil == "rows")
    return data


MIX_CALL = {
    "seed": st.integers(0, 2**63 - 1),
    "keep_order": st.booleans(),
    "dtype": st.sampled_from(["uint8", "float32"]),
    "layout": st.just("HWC"),
}


@pytest.mark.slow
@sets(100)
@given(drawn=st.data())
def test_mix_in_a_pipeline(drawn: st.DataObject) -> None:
    cfg = drawn.draw(MIXES.filter(bool))
    cfg = dataclasses.replace(cfg, num_classes=cfg.num_classes or 8)
    labels = drawn.draw(st.sampled_from(["int", "float"]))
    with contextlib.suppress(ValueError):
        cfg = dataclasses.replace(cfg, labels=labels)
    given_ = drawn.draw(options({}, MIX_CALL | {"partners": st.none(), "enabled": st.none()}))
    dtype = given_.get("dtype", "uint8")
    dtype = "float32" if isinstance(dtype, str) and dtype == "float32" else "uint8"
    data = drawn.draw(batches(dtype, cfg.labels, cfg.num_classes or 8))

    def call(images: Any, labels: Any, **chosen: Any) -> Any:
        if cfg.grouped and (cfg.labels == "float" or drawn.draw(st.booleans())):
            chosen["groups"] = graphs.feed(np.arange(len(data.images)) // 3)
        return dcm.mix(images, labels, cfg, **chosen)

    check_mix(call, cfg, data, given_)


@pytest.mark.slow
@sets(60)
@given(drawn=st.data(), name=st.sampled_from(["cutmix", "mixup"]))
def test_cutmix_and_mixup_in_a_pipeline(drawn: st.DataObject, name: str) -> None:
    own = {k: v for k, v in MIX_OPTIONS.items() if not k.endswith("alpha")}
    del own["num_classes"], own["labels"]  # `labels` are here those of the batch
    given_ = drawn.draw(
        options(
            {"num_classes": MIX_OPTIONS["num_classes"]},
            own | {"alpha": ALPHA.filter(bool), "seed": MIX_CALL["seed"]},
        )
    )
    asked = given_.get("num_classes")
    fits = isinstance(asked, int | np.integer) and 1 < asked <= 100
    data = drawn.draw(batches("uint8", "int", asked if fits else 8))
    rest = {k: v for k, v in given_.items() if k not in ("alpha", "seed")}
    alpha = given_.get("alpha", 1.0)
    alphas = (
        {"mixup_alpha": alpha, "cutmix_alpha": 0.0} if name == "mixup" else {"cutmix_alpha": alpha}
    )
    cfg = made_or_none(dcm.MixConfig, alphas | rest)
    check_mix(getattr(dcm, name), cfg, data, given_)


MIXED_BY_ANY = [
    st.builds(kind, **METHODS[kind]) for kind in METHODS if kind is not dcm.DetectionCutMix
]
OF_ANY = {
    "weights": st.sampled_from([(), (1.0,), (0.5, 0.5), (0.25, 0.75), (0.5, 0.25, 0.25)]),
    **{name: MIX_OPTIONS[name] for name in ("prob", "mode", "partner", "label_smoothing")},
}


@sets(60)
@given(drawn=st.data(), known=st.booleans(), keep_order=st.booleans())
def test_any_methods_in_a_pipeline(drawn: st.DataObject, known: bool, keep_order: bool) -> None:
    """Several methods with options of their own: pixels, lam and targets are those of the plan."""
    methods = drawn.draw(st.lists(st.one_of(MIXED_BY_ANY), min_size=1, max_size=3).map(tuple))
    given_ = drawn.draw(options({"methods": st.just(methods)}, OF_ANY, but=("methods",)))
    cfg = attempt(dcm.MixConfig, given_, "with Mosaic|with `mode=|`weights` must be")
    if cfg is None:
        return
    cfg = dataclasses.replace(cfg, num_classes=9)
    size = drawn.draw(st.sampled_from([(6, 9), (9, 6), (8, 8), (6, 30)]))
    images = graphs.distinct_images(np.random.default_rng(0), 9, size)
    if any(isinstance(m, dcm.Cutout) and isinstance(m.fill, tuple) for m in methods):
        methods = tuple(m for m in methods if not isinstance(m, dcm.Cutout))
        cfg = dataclasses.replace(cfg, methods=(dcm.Cutout(fill=(1, 2, 3)), *methods), weights=())
    if not known and any(isinstance(m, dcm.FMix) for m in cfg.methods):
        known = True  # else it is refused, by tests of its own
    batches_ = run_drawn(images, cfg, known=known, keep_order=keep_order)
    for batch in batches_:
        assert np.abs(batch["targets"].sum(axis=1, dtype=np.float64) - 1).max() < 1e-6
        if not cfg.tiles and not cfg.label_smoothing:
            check_patterns(batch, images, cfg.methods)


def check_mix(call: Any, cfg: dcm.MixConfig | None, data: Data, given_: Options) -> None:
    """Builds and runs a pipeline; what it gives is as promised, or the fault is named."""
    gc.collect()  # earlier pipelines are in cycles, and their buffers not of Python's counting
    count = len(data.images)

    def build(**mix_options: Any) -> Any:
        @pipeline_def(
            batch_size=count, num_threads=1, device_id=None, seed=1, prefetch_queue_depth=1
        )
        def pipe() -> Any:
            images = graphs.feed(data.images, data.layout)
            mixed = call(images, graphs.feed(data.labels), **mix_options)
            targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
            blended = mixed.params.blended
            if blended is None:
                blended = fn.constant(idata=[int(cfg.cutmix_alpha == 0)], shape=[])
            original = () if mixed.params.original is None else (mixed.params.original,)
            params = mixed.params
            return (
                mixed.images,
                params.lam,
                params.box,
                params.partner,
                *original,
                *targets,
                blended,
            )

        return pipe()

    clash = MIX_CLASH + "|`num_classes` must be given|must be left out"
    pipe = attempt(build, given_, clash, also="cutmix_alpha mixup_alpha num_classes")
    if pipe is None:
        return
    try:
        (outputs,) = graphs.run(pipe, 1)
    except RuntimeError as error:
        event("refused as it runs")
        words = explain(error) or ""
        named = re.match("`(images|labels)` must", words) is not None
        assert_that(named and not data.right, str(error))
        return
    assert data.right
    event("mixed")
    if data.images.dtype == np.uint8 and "blended" not in given_:
        check_batch(
            cfg, data.images, data.labels, outputs, keep_order=len(outputs) == expected(cfg)
        )
    assert all(np.isfinite(out.astype(np.float64)).all() for out in outputs)


MASKS = {
    "dtype": st.sampled_from(get_args(MaskType)),
    "layout": st.sampled_from([None, "HW", "HWC"]),
    "blend": st.sampled_from(["refuse", "heavier"]),
    "partners": st.none(),
}
BOXES = {"keep": st.tuples(SHARE, SHARE), "extra": st.just(()), "partners": st.none()}


def followed(
    cfg: dcm.MixConfig, seed: int, follow: Callable[[Any], Any]
) -> Callable[[], list[list[Array]]]:
    """Builds a mix of 8 images of 6 x 9, and what follows it: its outputs and the plan."""

    @pipeline_def(batch_size=8, num_threads=1, device_id=None, seed=seed)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((8, 6, 9, 3), np.uint8), "HWC")
        groups = {"groups": graphs.feed(np.arange(8) // 3)} if cfg.grouped else {}
        params = dcm.mix(images, None, cfg, **groups).params
        found = follow(params)
        found = found if isinstance(found, tuple) else (found,)
        blended = params.lam * 0 if params.blended is None else params.blended
        return (*found, params.lam, params.box, params.partner, blended)

    pipeline = pipe()
    return lambda: [[np.array(sample) for sample in output] for output in pipeline.run()]


@pytest.mark.slow
@sets(100)
@given(drawn=st.data(), seed=st.integers(0, 2**31))
def test_mix_masks_in_a_pipeline(drawn: st.DataObject, seed: int) -> None:
    cfg = drawn.draw(MIXES.filter(without_classes))
    given_ = drawn.draw(options({}, MASKS))
    true = drawn.draw(MASKS["dtype"]) if drawn.draw(st.booleans()) else given_.get("dtype", "uint8")
    true = true if isinstance(true, str) and true in get_args(MaskType) else "uint8"
    shape = (8, 6, 9) if drawn.draw(st.booleans()) else (8, 6, 9, 2)
    masks = np.random.default_rng(seed).integers(0, 100, shape).astype(true)
    run = attempt(
        lambda **o: followed(cfg, seed, lambda p: dcm.mix_masks(graphs.feed(masks), p, **o)),
        given_,
        '`blend` must be "heavier"',
        also="blend",
    )
    if run is None:
        return
    right = true == given_.get("dtype", "uint8")
    right = right and len(given_.get("layout") or "x" * masks[0].ndim) == masks[0].ndim
    try:
        out, lam, box, partner, blended = run()
    except RuntimeError as error:
        assert_that(not right and (explain(error) or "").startswith("`masks` must"), str(error))
        event("refused as it runs")
        return
    assert right
    for k, j in enumerate(partner):
        own, other = masks[k], masks[int(j)]
        if blended[k]:
            expected_ = own if lam[k] >= 0.5 else other
        else:
            expected_ = reference.pasted(own, other, tuple(box[k].tolist()))
        assert out[k].dtype == masks.dtype
        assert np.array_equal(out[k], expected_)


@pytest.mark.slow
@sets(100)
@given(drawn=st.data(), seed=st.integers(0, 2**31))
def test_mix_boxes_in_a_pipeline(drawn: st.DataObject, seed: int) -> None:
    cfg = drawn.draw(MIXES.filter(without_classes))
    given_ = drawn.draw(options({}, BOXES))
    boxes = random_boxes(np.random.default_rng(seed), 8, 9)
    classes = classes_of(np.random.default_rng(seed), boxes)

    def follow(params: Any, **chosen: Any) -> Any:
        return dcm.mix_boxes(graphs.feed(boxes), graphs.feed(classes), params, **chosen)

    run = attempt(lambda **o: followed(cfg, seed, lambda p: follow(p, **o)), given_)
    if run is None:
        return
    found, labels, _, box, partner, blended = run()
    keep = tuple(float(share) for share in given_.get("keep", (0.5, 0.5)))
    for k, j in enumerate(partner):
        own, other, expected_ = reference.shown_boxes(
            boxes[k],
            boxes[int(j)],
            tuple(box[k].tolist()),
            (6, 9),
            keep,
            method="MixUp" if blended[k] else "CutMix",
        )
        assert np.array_equal(found[k], expected_)
        assert np.array_equal(labels[k], [*classes[k][own], *classes[int(j)][other]])


def expected(cfg: dcm.MixConfig) -> int:
    """Outputs where the samples keep their places."""
    return 8 if cfg.targets == "pair" else 6


# --- sources, loaders


@pytest.fixture(scope="module")
def data(photos: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """20 small images as each kind of source."""
    root = tmp_path_factory.mktemp("options")
    samples = []
    for k, name in enumerate(sorted(os.listdir(photos))):
        (root / "folder" / name).mkdir(parents=True)
        for file in sorted(os.listdir(os.path.join(photos, name)))[:4]:
            place = root / "folder" / name / file
            with Image.open(os.path.join(photos, name, file)) as image:
                image.resize((30, 20)).save(place)
            samples.append((place, k))
    lines = [f"folder/{file.relative_to(root / 'folder')} {k}\n" for file, k in samples]
    (root / "list.txt").write_text("".join(lines))
    (root / "tar").mkdir()
    write_tar(root / "tar" / "0.tar", tar_samples(samples[:10]))
    write_tar(root / "tar" / "1.tar", tar_samples(samples[10:]))
    write_tfrecord(root / "0.tfrecord", slim(samples))
    write_recordio(root / "0.rec", samples)
    (root / "empty").mkdir()
    return {
        "root": root,
        "folder": str(root / "folder"),
        "list": root / "list.txt",
        "webdataset": str(root / "tar" / "{0..1}.tar"),
        "tfrecord": root / "0.tfrecord",
        "recordio": root / "0.rec",
    }


KINDS = ("folder", "list", "webdataset", "tfrecord", "recordio")


def sources_of(data: dict[str, Any]) -> Any:
    wrong = [data["root"], data["root"] / "empty", str(data["root"] / "no*.tar"), "s3://b/x.rec"]
    wrong += ["a{", "a{1..", "{3..1}.tar", "[", "ftp://x/y.tar", "x" * 5000, "/dev/null", "."]
    wrong += [[data["folder"], data["folder"]], [data["recordio"]] * 2, *WRONG[1:]]
    right = [*(data[kind] for kind in KINDS)] * 8
    return st.sampled_from([(True, source) for source in right] + [(False, s) for s in wrong])


@sets(60)
@given(drawn=st.data())
def test_find_source(data: dict[str, Any], drawn: st.DataObject) -> None:
    right, source = drawn.draw(sources_of(data))
    given_ = drawn.draw(
        options(
            {},
            {
                "kind": st.sampled_from(KINDS),
                "file_root": st.just(data["root"]),
                "index_dir": st.just(data["root"] / "idx"),
                "fields": st.sampled_from([("jpg", "cls"), ("image/encoded", "image/class/label")]),
                "label_offset": st.sampled_from([0, 0, 1, -1, 7]),
                "make_indexes": st.booleans(),
                "progress": st.just(max),
            },
            # A path that may be anywhere: nothing is to be made there.
            but=("index_dir", "progress"),
        )
    )
    given_["source"] = source
    given_.names |= {"source"}
    if not right or {"kind", "file_root", "fields"} & given_.keys():
        given_.spoiled += ("source",)
        given_.names |= {"index_dir", "fields"}  # which remote shards need
    clash = "must be left out|must be 0 for|with `label_offset` must|must exist"
    try:
        found = attempt(dcm.find_source, given_, clash)
    except OSError as error:
        text = str(error)
        named = re.search("`(source|file_root|kind)`|must exist|must be a file", text)
        assert_that(bool(named and given_.spoiled), text)
        event("no file")
        return
    if found is not None:
        check_value(found)
        assert found.kind in KINDS
        assert found.size in (None, 20)


LOADED = {
    "seed": st.integers(0, 2**63 - 1),
    "channels": st.sampled_from([3, 3, 1, 4]),
    "read_as": st.sampled_from(["uint8", "uint8", "float32"]),
    "num_threads": st.integers(1, 3),
    "dtype": st.sampled_from(["float32", "float16"]),
    "layout": st.sampled_from(["NCHW", "NHWC"]),
    "antialias": st.booleans(),
    "prefetch_queue_depth": st.integers(1, 3),
    "hw_decoder_load": SHARE,
    "shard_id": st.just(0),
    "num_shards": st.just(1),
}
TRAIN = {k: v for k, v in SEEN.items() if k not in ("mix",)} | LOADED
TRAIN |= {
    "mix": st.one_of(st.none(), st.just("recipe"), MIXES),
    "recipe": st.sampled_from([None, *dcm.recipes.RECIPES]),
    "num_classes": st.sampled_from([5, 6, 100]),
    "shuffle": st.booleans(),
    "with_params": st.booleans(),
    "switchable": st.booleans(),
    "partners": st.sampled_from([None, "recipe", "tail"]),
    "tail_alpha": st.sampled_from([0.0, 0.5, 1.0]),
}
OWN = ("source", "size")
SHARDS = "`shard_id` and `num_shards` must be given together"
PIXELS = "must be given with `channels=|must be [14] numbers|must be None with `|number of bands"


def checked_images(images: torch.Tensor, count: int, given_: Options, size: Any) -> None:
    size = (size, size) if isinstance(size, int) else tuple(size)
    assert images.shape == (count, given_.get("channels") or 3, *size)
    assert images.dtype == getattr(torch, given_.get("dtype", "float32"))
    assert images.isfinite().all()
    nhwc = given_.get("layout") == "NHWC"
    assert images.is_contiguous(memory_format=torch.channels_last) or not nhwc


def of_shard(given_: Options, count: int = 20) -> int:
    """How many of the images are those of the shard, where a wrong value was a right one."""
    shard, shards = given_.get("shard_id") or 0, given_.get("num_shards") or 1
    return int(count * (shard + 1) // shards - count * shard // shards)


@pytest.mark.slow
@sets(40)
@given(drawn=st.data())
def test_train_loader(data: dict[str, Any], drawn: st.DataObject) -> None:
    required = {
        "source": st.sampled_from([data["folder"], data["list"], data["webdataset"]]),
        "batch_size": st.integers(2, 9),
        "device": st.just("cpu"),
        "size": SIZE,
    }
    given_ = drawn.draw(options(required, TRAIN, but=OWN))
    if data["webdataset"] == given_["source"]:
        given_.setdefault("num_classes", 5)
    clash = f"{SHARDS}|{PIXELS}|nothing is mixed|at least twice|"
    clash += "`num_classes` must be (at least the|that of `mix`)|must be given to mix|"
    clash += "`mix` must be one for `partners`|must be None where `mix` is|without `partners=|"
    clash += "`source` must be a folder, a list or samples of one class|one for each class, got"
    loader = attempt(dcm.train_loader, given_, clash, also="mix num_classes size")
    if loader is None:
        return
    with loader:
        count = int(given_["batch_size"])
        assert len(loader) == of_shard(given_) // count
        images, targets = next(iter(loader))
        checked_images(images, count, given_, given_["size"])
        parts = targets if isinstance(targets, tuple) else (targets,)
        assert all(len(part) == count and part.isfinite().all() for part in parts)
        if parts[0].dim() == 2:
            assert (parts[0].double().sum(1) - 1).abs().max() < 1e-5
            assert parts[0].shape[1] == loader.num_classes


@pytest.mark.slow
@sets(40)
@given(drawn=st.data())
def test_val_loader(data: dict[str, Any], drawn: st.DataObject) -> None:
    required = {
        "source": st.sampled_from([data["folder"], data["list"], data["recordio"]]),
        "batch_size": st.integers(1, 30),
        "device": st.just("cpu"),
        "size": SIZE,
    }
    optional = {k: v for k, v in LOADED.items() if k != "seed"}
    optional |= {k: SEEN[k] for k in ("mean", "std")}
    optional |= {"interpolation": st.sampled_from(["bilinear", "bicubic"])}
    optional |= {"resize": st.integers(1, 60), "num_classes": st.sampled_from([5, 6])}
    optional |= {"recipe": TRAIN["recipe"], "classes": st.just(sorted(os.listdir(data["folder"])))}
    given_ = drawn.draw(options(required, optional, but=("source", "size")))
    clash = f"{SHARDS}|{PIXELS}|`resize` must be at least `size`"
    loader = attempt(dcm.val_loader, given_, clash)
    if loader is None:
        return
    with loader:
        seen = 0
        for images, labels in loader:
            checked_images(images, len(labels), given_, given_["size"])
            assert labels.dtype == torch.int64
            assert 0 <= labels.min() <= labels.max() < 5
            seen += len(labels)
        assert seen == of_shard(given_)
        assert len(loader) == math.ceil(seen / given_["batch_size"])


@pipeline_def
def own_pipeline(root: str, cfg: Any = None, pad: bool = True, second: bool = False) -> Any:
    encoded, labels = fn.readers.file(file_root=root, pad_last_batch=pad, name="first")
    images = fn.resize(imagenet.decode(encoded, "cpu"), size=(6, 9))
    if second:
        images = fn.cast_like(
            images + fn.readers.file(file_root=root, name="second")[1] * 0, images
        )
    if cfg is None:
        return images, fn.cast(fn.reshape(labels, shape=[]), dtype=types.INT64)
    mixed = dcm.mix(images, labels, cfg)
    return (
        mixed.images,
        *(mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)),
    )


@sets(40)
@given(drawn=st.data())
def test_loader_of_ones_own_pipeline(data: dict[str, Any], drawn: st.DataObject) -> None:
    required = {
        "pipeline": st.just(own_pipeline),
        "root": st.just(data["folder"]),
        "batch_size": st.integers(2, 9),
        "num_threads": st.integers(1, 3),
        "device_id": st.none(),
    }
    optional = {
        "cfg": MIXES,
        "pad": st.sampled_from([True, True, True, False]),
        "second": st.sampled_from([False, False, True]),
        "seed": st.integers(0, 2**31),
        "prefetch_queue_depth": st.integers(1, 3),
        "reader_name": st.sampled_from(["first", "second"]),
        "last_batch": st.sampled_from(["drop", "partial"]),
        "channels_last": st.booleans(),
    }
    # What DALI's own arguments take, and what the pipeline does with its own, is not ours.
    own = (
        "root",
        "batch_size",
        "colour",
        "channels_last",
        "reader_name",
        "num_threads",
        "device_id",
        "seed",
        "prefetch_queue_depth",
        "pad",
        "second",
        "cfg",
    )
    given_ = drawn.draw(options(required, optional, but=own))
    clash = "pad_last_batch|`reader_name` must|for a pipeline that mixes|`num_classes` must"
    loader = attempt(dcm.Loader, given_, clash, also="num_classes labels")
    if loader is None:
        return
    with loader:
        batches_seen = list(loader)
        assert len(batches_seen) == len(loader)
        partial = given_.get("last_batch") == "partial"
        total = sum(len(images) for images, _ in batches_seen)
        assert total == (20 if partial else 20 // given_["batch_size"] * given_["batch_size"])


# --- losses


LOGITS = st.sampled_from(
    [torch.linspace(-3, 3, 12).reshape(4, 3), torch.zeros(1, 1), torch.full((4, 3), 50.0).half()]
)
ROWS = st.sampled_from([torch.full((4, 3), 1 / 3), torch.ones(1, 1)])
LABEL = st.sampled_from([torch.tensor([0, 1, 2, 2]), torch.tensor([0])])
LAM = st.sampled_from([torch.tensor([0.0, 1.0, 0.5, 0.25]), torch.ones(1)])


LOSSES = ("binary_cross_entropy", "cross_entropy", "mixed_accuracy")


@sets(200)
@given(drawn=st.data(), function=st.sampled_from(LOSSES))
def test_losses(drawn: st.DataObject, function: str) -> None:
    optional = {} if function == "mixed_accuracy" else {"label_smoothing": SHARE}
    if function == "binary_cross_entropy":
        optional["target_threshold"] = SHARE
    targets = st.one_of(ROWS, LABEL, st.tuples(LABEL, LABEL, LAM))
    given_ = drawn.draw(options({"logits": LOGITS, "targets": targets}, optional))
    loss = attempt(getattr(losses, function), given_, "`targets` must be|for rows of targets")
    if loss is not None:
        assert loss.shape == ()
        assert loss.isfinite()
        assert loss >= -1e-6


# --- the command


FLAGS = {
    "--batch-size": st.integers(2, 9).map(str),
    "--size": st.integers(3, 24).map(str),
    "--seed": st.integers(0, 2**63 - 1).map(str),
    "--images": st.integers(1, 9).map(str),
    "--columns": st.integers(1, 9).map(str),
    "--recipe": st.sampled_from([*dcm.recipes.RECIPES]),
    "--cutmix-alpha": ALPHA.map(str),
    "--mixup-alpha": ALPHA.map(str),
    "--prob": SHARE.map(str),
    "--switch-prob": SHARE.map(str),
    "--mode": st.sampled_from(["elem", "batch", "pair"]),
    "--minmax": st.just("0.2 0.8"),
    "--box": st.sampled_from(["paper", "timm", "torchvision", "inside"]),
    "--partner": st.sampled_from(["permutation", "flip", "roll", "same", "other"]),
    "--label-smoothing": SHARE.map(str),
    "--no-correct-lam": st.just(""),
}
WRONG_WORDS = [
    *("", "-1", "0", "1e400", "nan", "inf", "x", "0.5", "99999999999999999999", "größe", "a\nb"),
    *("--", "-", "\udc80", "1 2 3", "True", "[bold]", "%s", "'", "@x"),
]


@pytest.mark.slow
@sets(20)
@given(drawn=st.data(), command=st.sampled_from(["show", "show", "demo"]))
def test_show_and_demo(data: dict[str, Any], drawn: st.DataObject, command: str) -> None:
    chosen = drawn.draw(st.sets(st.sampled_from(sorted(FLAGS)), max_size=6))
    given_ = {"--batch-size": "4", "--size": "8", "--images": "4"}
    given_ |= {flag: drawn.draw(FLAGS[flag]) for flag in sorted(chosen)}
    spoiled = drawn.draw(st.booleans())
    if spoiled:
        flag = drawn.draw(
            st.sampled_from([*sorted(FLAGS), "--out", "--data", "--device", "--colour"])
        )
        given_[flag] = drawn.draw(st.sampled_from(WRONG_WORDS))
    picture = data["root"] / f"{command}.png"
    picture.unlink(missing_ok=True)
    argv = [command, "--data", data["folder"], "--out", str(picture), "--device", "cpu", "--json"]
    argv += ["--epochs", "1"] if command == "demo" else []
    for flag, words in given_.items():
        argv += [flag, *(words.split() if flag == "--minmax" else [words] if words else [])]
    status, out, err = called(argv)
    event(f"status {status}")
    if status == 0:
        report = json.loads(out)
        samples = report["samples"]
        assert Path(report["picture"]).exists()
        assert all(0 <= sample["lam"] <= 1 for sample in samples)
        return
    assert not picture.exists()
    assert out == ""
    lines = err.splitlines()
    named = {flag.strip("-").replace("-", "_") for flag in given_}
    named |= {"num_classes", "source", *(["correct_lam"] if "--no-correct-lam" in given_ else [])}
    if status == 2:
        assert spoiled
        assert lines[0].startswith("usage: ")
    else:
        assert status == 1
        assert re.match("dali-cutmix: .*`", lines[-1]), err
        words = {
            word.strip("-").replace("-", "_")
            for word in re.findall("`(-*[a-z][a-z_-]+)[`=]", lines[-1])
        }
        assert words & named or "for both" in lines[-1], err
        assert spoiled or re.search(f"{MIX_CLASH}|at least twice `repeats`", err), err


@sets(40)
@given(drawn=st.data())
def test_recipes_and_index(data: dict[str, Any], drawn: st.DataObject) -> None:
    if drawn.draw(st.booleans()):
        name = drawn.draw(
            st.one_of(st.sampled_from(WRONG_WORDS), st.sampled_from([*dcm.recipes.RECIPES]))
        )
        argv = ["recipes", *([name] if name else []), "--json"]
    else:
        sources = [str(data[kind]) for kind in KINDS] + [str(data["root"] / "no.tar"), *WRONG_WORDS]
        names = drawn.draw(st.lists(st.sampled_from(sources), min_size=1, max_size=2))
        argv = ["index", *names, "--out", str(data["root"] / "made"), "--json"]
    status, out, err = called(argv)
    event(f"{argv[0]}: status {status}")
    if status == 0:
        json.loads(out)
    else:
        assert status in (1, 2)
        assert out == ""
        assert "Traceback" not in err
        assert re.search("^usage: |dali-cutmix: .*(`source`|`recipe`)", err), err


def called(argv: list[str]) -> tuple[int, str, str]:
    """Runs the command in this process; returns status, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        try:
            status = cli.main(argv)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue(), err.getvalue()
