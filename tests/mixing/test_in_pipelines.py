"""mix() in pipelines as users write them: conditionals, several mixes, shards, DALI's errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from tests.support import graphs
from tests.support.graphs import Array

CONFIGS: dict[str, dict[str, Any]] = {
    "cutmix": {},
    "batch": {"mode": "batch", "partner": "derangement"},
    "pair": {"mode": "pair", "partner": "flip"},
    "roll": {"partner": "roll"},
    "minmax": {"minmax": (0.2, 0.8)},
    "inside": {"box": "inside", "label_smoothing": 0.1},
    "timm box": {"box": "timm", "prob": 0.5},
    "alpha": {"cutmix_alpha": 0.3, "correct_lam": False},
    "mixup": {"cutmix_alpha": 0.0, "mixup_alpha": 0.4},
    "mixup, prob": {"cutmix_alpha": 0.0, "mixup_alpha": 0.4, "prob": 0.5},
    "both": {"mixup_alpha": 0.4, "prob": 0.8},
    "both, batch": {"mixup_alpha": 0.4, "mode": "batch"},
    "pair targets": {"targets": "pair"},
    "three methods": {
        "methods": (dcm.CutMix(), dcm.ResizeMix(), dcm.MixUp()),
        "weights": (0.4, 0.4, 0.2),
    },
    "mosaic": {"methods": (dcm.CutMix(), dcm.Mosaic()), "mode": "batch"},
}
TIMM: dict[str, dict[str, Any]] = {
    "timm": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1},
    "timm, minmax": {"cutmix_minmax": (0.2, 0.8), "label_smoothing": 0.0, "mode": "elem"},
    "timm, pair": {"mixup_alpha": 0.8, "label_smoothing": 0.0, "mode": "pair"},
}


def config(name: str) -> dcm.MixConfig:
    if name in TIMM:
        return dcm.MixConfig.from_timm(**TIMM[name], num_classes=16)
    return dcm.MixConfig(num_classes=16, **CONFIGS[name])


@pytest.mark.parametrize("size", [None, (10, 14)], ids=["unsized", "sized"])
@pytest.mark.parametrize("name", [*CONFIGS, *TIMM])
def test_conditionals_change_nothing(name: str, size: tuple[int, int] | None) -> None:
    # DALI's AutoGraph rewrites what such a pipeline calls.
    images = graphs.distinct_images(np.random.default_rng(2), 16, (10, 14))

    def run(conditionals: bool) -> list[list[Array]]:
        @pipeline_def(
            batch_size=16,
            num_threads=1,
            device_id=None,
            seed=1,
            enable_conditionals=conditionals,
        )
        def pipe() -> Any:
            pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
            if conditionals:
                pixels = pixels
            mixed = dcm.mix(pixels, labels, config(name), size=size)
            targets = mixed.targets if isinstance(mixed.targets, tuple) else (mixed.targets,)
            return mixed.images, mixed.params.lam, mixed.params.box, *targets

        return graphs.run(pipe(), 3)

    for plain, converted in zip(run(False), run(True), strict=True):
        for a, b in zip(plain, converted, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("mixed_by", [dcm.cutmix, dcm.mixup])
def test_the_short_functions_with_conditionals(mixed_by: Any) -> None:
    images = graphs.distinct_images(np.random.default_rng(2), 16, (10, 14))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1, enable_conditionals=True)
    def pipe() -> Any:
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        return mixed_by(pixels, labels, num_classes=16, partner="roll").targets

    ((targets,),) = graphs.run(pipe())
    assert np.abs(targets.sum(1) - 1).max() < 1e-6


# Several mixes, several shards


def test_two_mixes_of_a_pipeline_draw_apart_and_the_first_as_if_alone() -> None:
    images = graphs.distinct_images(np.random.default_rng(2), 64, (20, 24))

    @pipeline_def(batch_size=64, num_threads=1, device_id=None, seed=1)
    def pipe(count: int) -> Any:
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(64))
        cfg, found = dcm.MixConfig(num_classes=64), []
        for _ in range(count):
            params = dcm.mix(pixels, labels, cfg).params
            found += [params.box, params.partner]
        return tuple(found)

    ((box, partner),) = graphs.run(pipe(1))
    ((box_1, partner_1, box_2, partner_2, box_3, partner_3),) = graphs.run(pipe(3))
    assert np.array_equal(box, box_1)
    assert np.array_equal(partner, partner_1)
    for a, b in ((box_1, box_2), (box_1, box_3), (box_2, box_3)):
        assert (a == b).all(1).mean() < 0.2
    for a, b in ((partner_1, partner_2), (partner_1, partner_3), (partner_2, partner_3)):
        assert (a == b).mean() < 0.2


def test_two_ranks_draw_apart_without_being_told(photos: str) -> None:
    @pipeline_def(batch_size=32, num_threads=1, device_id=None, seed=1)
    def pipe(shard_id: int, num_shards: int) -> Any:
        encoded, labels = fn.readers.file(
            file_root=photos, shard_id=shard_id, num_shards=num_shards, pad_last_batch=True
        )
        images = fn.resize(fn.decoders.image(encoded), size=(20, 24))
        params = dcm.mix(images, labels, dcm.MixConfig(num_classes=5)).params
        return params.box, params.partner

    ((alone, alone_partner),) = graphs.run(pipe(0, 1))
    ((first, first_partner),) = graphs.run(pipe(0, 2))
    ((second, second_partner),) = graphs.run(pipe(1, 2))
    assert np.array_equal(alone, first)
    assert np.array_equal(alone_partner, first_partner)
    assert (first == second).all(1).mean() < 0.2
    assert (first_partner == second_partner).mean() < 0.2


# What a bare pipeline says


def bare(images: Any, labels: Any, layout: str | None = "HWC", **options: Any) -> str:
    """What DALI says of a pipeline without a Loader."""
    cfg = options.pop("cfg", dcm.MixConfig(num_classes=4))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        given = {name: graphs.feed(values) for name, values in options.pop("fed", {}).items()}
        mixed = dcm.mix(graphs.feed(images, layout), graphs.feed(labels), cfg, **given, **options)
        return mixed.images, mixed.targets

    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        pipe().run()
    return str(caught.value)


GOOD = np.zeros((16, 8, 9, 3), np.uint8)
LABELS = np.zeros(16, np.int32)


@pytest.mark.parametrize(
    ("images", "labels", "options", "rule"),
    [
        (GOOD.astype(np.float32), LABELS, {}, "`images` must be uint8, HWC and of one size"),
        (
            GOOD.transpose(0, 3, 1, 2).copy(),
            LABELS,
            {"layout": "CHW"},
            "`images` must be uint8, HWC",
        ),
        (GOOD, LABELS + 17, {}, r"`labels` must be int32 or int64 scalars in [0, num_classes)"),
        (GOOD, LABELS + 0.5, {}, "`labels` must be int32 or int64 scalars"),
        (
            GOOD,
            np.zeros((16, 7), np.float32),
            {"cfg": dcm.MixConfig(num_classes=4, labels="float")},
            "`labels` must be float32 rows of `num_classes`",
        ),
        (
            GOOD[:12],
            LABELS[:12],
            {"cfg": dcm.MixConfig(num_classes=4, partner="flip")},
            "Every batch must be full where samples are paired by their index",
        ),
        (GOOD, LABELS, {"fed": {"enabled": np.ones((16, 2))}}, "`enabled` must be a bool"),
        (GOOD, LABELS, {"size": (8, 10)}, "`images` must be uint8 (or of `dtype`), HWC and of the"),
        (GOOD, LABELS, {"size": (7, 9)}, "`images` must be uint8 (or of `dtype`), HWC and of the"),
        (GOOD, LABELS, {"size": (4, 18)}, "`images` must be uint8 (or of `dtype`), HWC and of the"),
    ],
    ids=[
        *("floats", "CHW", "label too high", "label a float", "short rows", "not full"),
        *("enabled", "wider", "lower", "same volume"),
    ],
)
def test_a_bare_pipeline_says_the_rule(
    images: Any, labels: Any, options: dict[str, Any], rule: str
) -> None:
    text = bare(images, labels, **options)
    assert f"in dali_cutmix: {rule}" in text
    words = explain(RuntimeError(text))
    assert words is not None
    assert words.startswith(rule)


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.4])
@pytest.mark.parametrize("shape", [(5, 8, 9, 3), (5, 8, 9, 1), (4, 9)], ids=str)
@pytest.mark.parametrize("size", [None, (5, 8)])
def test_samples_must_have_three_axes(
    shape: tuple[int, ...], size: Any, mixup_alpha: float
) -> None:
    # (5, 8, 9, 1) has the values of an image of 5 x 8 pixels and 9 channels.
    cfg = dcm.MixConfig(num_classes=4, cutmix_alpha=1 - bool(mixup_alpha), mixup_alpha=mixup_alpha)
    text = bare(np.zeros((16, *shape), np.uint8), LABELS, layout=None, cfg=cfg, size=size)
    assert "in dali_cutmix: `images` must be uint8" in text


def test_words_are_for_frames_of_this_package_alone(tmp_path: Path) -> None:
    # A user's own files and functions may have any names.
    (tmp_path / "followers.py").write_text(
        "import numpy as np\n"
        "from nvidia.dali import fn, pipeline_def, types\n"
        "@pipeline_def(batch_size=2, num_threads=1, device_id=None)\n"
        "def mix_images():\n"
        "    zeros = types.Constant(np.zeros(1, np.int32))\n"
        "    return fn.slice(zeros, start=[3], shape=[1], axes=[0])\n"
    )
    script = (
        "import followers\n"
        "from dali_cutmix._rules import explain\n"
        "try: followers.mix_images().run()\n"
        "except Exception as error: print(explain(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "None"


def test_a_warning_points_at_the_line_of_the_user(photos: str) -> None:
    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def pipe() -> Any:
        pixels, labels = graphs.feed(GOOD[:4], "HWC"), graphs.feed(LABELS[:4])
        return dcm.cutmix(pixels, labels, num_classes=4).images

    def loader() -> None:
        dcm.train_loader(photos, batch_size=4, size=8, mix=dcm.MixConfig(), device="cpu").close()

    for function in (pipe, loader):
        with pytest.warns(UserWarning, match="Mixing in a batch of 4") as caught:
            function()
        assert [warning.filename for warning in caught] == [__file__]


# What could go wrong silently


@pytest.mark.parametrize("prob", [1.0, 0.5])
@pytest.mark.parametrize("size", [None, (8, 9)])
def test_mixup_of_images_without_a_layout(prob: float, size: Any) -> None:
    images = graphs.distinct_images(np.random.default_rng(0), 16, (8, 9))
    cfg = dcm.MixConfig(num_classes=16, cutmix_alpha=0.0, mixup_alpha=1.0, prob=prob)

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        mixed = dcm.mix(graphs.feed(images), graphs.feed(np.arange(16)), cfg, size=size)
        params = mixed.params
        return mixed.images, params.lam, params.partner, params.blended

    count = 0
    for out, lam, partner, blended in graphs.run(pipe(), 3):
        for i, j in enumerate(partner):
            if blended[i]:
                graphs.assert_blended(out[i], images[i], images[j], lam[i])
            else:
                assert np.array_equal(out[i], images[i])
        count += int(blended.sum())
    assert count == 48 if prob == 1 else 0 < count < 48


@pytest.mark.parametrize("size", [None, (8, 9)])
def test_a_mask_is_not_blended(size: tuple[int, int] | None) -> None:
    images = graphs.distinct_images(np.random.default_rng(0), 16, (8, 9))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe(channels: int) -> Any:
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        cfg = dcm.MixConfig(num_classes=16, mixup_alpha=0.4)
        params = dcm.mix(pixels, labels, cfg).params
        again = graphs.feed(images[..., :channels].copy(), "HWC")
        return dcm.mix(again, labels, cfg, params=params, size=size).images

    assert graphs.run(pipe(3))[0][0].shape == images.shape
    with pytest.raises(RuntimeError) as caught:
        pipe(1).run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`params` of a mix that blends must not be given to mix() with images")
