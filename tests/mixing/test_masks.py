"""mix_masks() against the NumPy reference, and against the images that were mixed."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.mixing.followers.masks import MaskType
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
ALL = ("CutMix", "ResizeMix", "MixUp")
METHODS = (dcm.CutMix(), dcm.ResizeMix(), dcm.MixUp(alpha=1.0))


def random_masks(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Any bits, of floats also those of NaNs and infinities."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    *rows, last = shape
    size = np.dtype(dtype).itemsize
    return rng.integers(0, 256, (*rows, last * size), dtype=np.uint8).view(dtype)


def expected_mask(mask: Array, partner: Array, kind: str, lam: float, box: Any) -> Array:
    if kind == "MixUp":
        return mask if lam >= 0.5 else partner
    if kind == "ResizeMix":
        return reference.resized_into(mask, partner, box)
    return reference.pasted(mask, partner, box)


def same(a: Array, b: Array) -> bool:
    """Type, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=["HW", "HW1", "HW3"])
@pytest.mark.parametrize("dtype", get_args(MaskType))
def test_masks_of_every_type_equal_the_reference(
    dtype: Any, channels: tuple[int, ...], device: str
) -> None:
    # 12 types x 3 shapes x 2 x 48 plans = 3,456 masks; of 32 columns, for what
    # test_volumes.for_device says.
    found = set()
    for size, known in (((13, 32), True), ((21, 32), False)):
        rng = np.random.default_rng([*size, len(channels)])
        kinds, draws = graphs.hand_made(rng, 48, size, ALL)
        masks = random_masks(rng, (48, *size, *channels), dtype)

        @pipeline_def(batch_size=48, num_threads=2, device_id=0 if device == "gpu" else None)
        def pipe(options: Any, masks: Array, draws: Any) -> Any:
            images = graphs.feed(np.zeros((48, *masks.shape[1:3], 3), np.uint8))
            given, params = graphs.feed(masks), graphs.plan_of_draws(images, draws, **options)
            given = given.gpu() if device == "gpu" else given
            return dcm.mix_masks(given, params, dtype=dtype, blend="heavier")

        ((out,),) = graphs.run(pipe({"size": size} if known else {}, masks, draws))
        for k, kind in enumerate(kinds):
            i, j = draws["original"][k], draws["partner"][k]
            box = tuple(draws["box"][k].tolist())
            expected = expected_mask(masks[i], masks[j], kind, draws["lam"][k], box)
            assert same(out[k], expected), (k, kind)
            found.add(kind)
    assert found == {*ALL, "none"}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("size", [None, (12, 32)], ids=["unsized", "sized"])
@pytest.mark.parametrize("mode", ["elem", "batch", "pair"])
@pytest.mark.parametrize("methods", [METHODS[:1], METHODS[1:2], METHODS[:2]], ids=["C", "R", "CR"])
def test_a_mask_is_where_its_pixels_are(
    methods: Any, mode: Any, size: Any, keep_order: bool, device: str
) -> None:
    # The mask is a channel of the image.
    images = graphs.distinct_images(np.random.default_rng(1), 32, (12, 32))
    cfg = dcm.MixConfig(methods=methods, mode=mode, prob=0.8, partner="flip")

    @pipeline_def(batch_size=32, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        pixels = graphs.feed(images, "HWC")
        pixels = pixels.gpu() if device == "gpu" else pixels
        mixed = dcm.mix(pixels, None, cfg, size=size, keep_order=keep_order)
        return mixed.images, dcm.mix_masks(pixels[:, :, 1], mixed.params), mixed.params.lam

    for out, masks, lam in graphs.run(pipe(), 4):
        assert np.array_equal(masks, out[..., 1])
        assert mode == "batch" or (lam < 1).any()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("conditionals", [True, False])
@pytest.mark.parametrize("layout", [None, "HW", "HWC"])
def test_in_any_pipeline(layout: Any, conditionals: bool, enabled: bool) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (12, 32))
    masks = images[..., 0] if layout == "HW" else images

    @pipeline_def(
        batch_size=32, num_threads=2, device_id=None, seed=1, enable_conditionals=conditionals
    )
    def pipe() -> Any:
        pixels, given = graphs.feed(images, "HWC"), graphs.feed(masks)
        switch = graphs.feed(np.full(32, enabled))
        mixed = dcm.mix(pixels, None, dcm.MixConfig(), enabled=switch, size=(12, 32))
        out = dcm.mix_masks(given, mixed.params, layout=layout)
        # A flip needs the layout.
        return mixed.images, out, fn.flip(out) if layout == "HWC" else out

    ((out, followed, flipped),) = graphs.run(pipe())
    assert np.array_equal(followed, out[..., 0] if layout == "HW" else out)
    assert np.array_equal(out, images) == (not enabled)
    if layout == "HWC":
        assert np.array_equal(flipped, followed[:, :, ::-1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("methods", [METHODS[:1], METHODS], ids=["CutMix", "all"])
def test_masks_of_a_second_batch(methods: Any, device: str) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 5, (12, 32))
    others = 255 - images
    cfg = dcm.MixConfig(methods=methods)

    @pipeline_def(batch_size=5, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        a, b = graphs.feed(images, "HWC"), graphs.feed(others, "HWC")
        if device == "gpu":
            a, b = a.gpu(), b.gpu()
        mixed = dcm.mix(a, None, cfg, partners=(b, None))
        masks = dcm.mix_masks(a, mixed.params, partners=b, blend="heavier")
        blended = mixed.params.blended
        return mixed.images, masks, mixed.params.lam * 0 if blended is None else blended

    copied = 0
    for out, masks, blended in graphs.run(pipe(), 6):
        for k in range(5):
            copied += int(not blended[k])
            if blended[k]:
                assert any(np.array_equal(masks[k], batch[k]) for batch in (images, others))
            else:
                assert np.array_equal(masks[k], out[k])
    assert copied


def test_the_heavier_mask_is_shown() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (12, 32))
    cfg = dcm.MixConfig(methods=(dcm.MixUp(alpha=1.0),))

    @pipeline_def(batch_size=32, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        pixels = graphs.feed(images, "HWC")
        params = dcm.mix(pixels, None, cfg).params
        return dcm.mix_masks(pixels, params, blend="heavier"), params.lam, params.partner

    ((masks, lam, partner),) = graphs.run(pipe())
    for k in range(32):
        assert np.array_equal(masks[k], images[k if lam[k] >= 0.5 else partner[k]])
    assert 0 < (lam >= 0.5).sum() < 32


def test_labels_may_be_left_out() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (12, 32))
    labels, runs = np.arange(32, dtype=np.int32)[:, None], []
    for size, known in itertools.product((None, (12, 32)), (True, False)):

        @pipeline_def(batch_size=32, num_threads=2, device_id=None, seed=1)
        def pipe(size: Any = size, known: bool = known) -> Any:
            cfg = dcm.MixConfig(num_classes=32 if known else None)
            given = graphs.feed(labels) if known else None
            mixed = dcm.mix(graphs.feed(images, "HWC"), given, cfg, size=size)
            assert (mixed.targets is None) == (not known)
            return mixed.images

        runs.append(graphs.run(pipe(), 2))
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for (a,), (b,) in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("size", [None, (9, 8)])
def test_images_without_labels_are_checked(size: Any) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 8, 9, 3), np.uint8 if size else np.float32), "HWC")
        return dcm.mix(images, None, dcm.MixConfig(), size=size).images

    with pytest.raises(RuntimeError) as caught:
        pipe().run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`images` must be uint8")


# What is refused


def build(masks: Any = None, mixed: Any = None, run: bool = False, **options: Any) -> None:
    cfg = options.pop("cfg", dcm.MixConfig())

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 8, 9, 3), np.uint8), "HWC")
        params = dcm.mix(images, None, cfg, **(mixed or {})).params
        given = images if masks is None else masks if np.isscalar(masks) else graphs.feed(masks)
        return dcm.mix_masks(given, **{"params": params, **options})

    built = pipe()
    if run:
        built.run()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"masks": 3}, TypeError, "`masks` must be a DataNode of a pipeline, got int"),
        ({"dtype": "uint24"}, ValueError, '`dtype` must be one of "uint8", "int8"'),
        ({"blend": "mean"}, ValueError, '`blend` must be one of "refuse", "heavier"'),
        ({"layout": "CHW"}, ValueError, '`layout` must be one of "HW", "HWC"'),
        ({"layout": "DHW"}, ValueError, '`layout` must be one of "HW", "HWC"'),
        ({"params": "x"}, TypeError, "`params` must be the params that mix"),
        ({"params": dcm.MixParams(None)}, TypeError, "made by hand go through mix"),  # type: ignore[arg-type]
        ({"partners": 3}, ValueError, "`partners` must be given where mix"),
        (
            {"cfg": dcm.MixConfig(mixup_alpha=0.2)},
            ValueError,
            '`blend` must be "heavier" where `params` may blend images',
        ),
        (
            {"cfg": dcm.MixConfig(cutmix_alpha=0.0, mixup_alpha=0.2)},
            ValueError,
            '`blend` must be "heavier"',
        ),
    ],
)
def test_what_is_known_at_build_is_refused_at_build(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(**options)


@pytest.mark.parametrize("mixed", [{}, {"size": (8, 9)}], ids=["unsized", "sized"])
@pytest.mark.parametrize(
    ("masks", "options"),
    [
        (np.zeros((16, 9, 8), np.uint8), {}),
        (np.zeros((16, 4, 18, 1), np.uint8), {}),
        (np.zeros((16, 8, 10), np.uint8), {}),
        (np.zeros((16, 72), np.uint8), {}),
        (np.zeros((16, 8, 9), np.int8), {}),
        (np.zeros((16, 8, 9), bool), {}),
        (np.zeros((16, 8, 9), np.int32), {}),
        (np.zeros((16, 8, 9), np.uint8), {"dtype": "int64"}),
        (np.zeros((16, 8, 9), np.float16), {"dtype": "int16"}),
        (np.zeros((16, 8, 9), np.uint8), {"layout": "HWC"}),
        (np.zeros((16, 8, 9, 1), np.uint8), {"layout": "HW"}),
    ],
)
def test_wrong_masks_are_named(masks: Array, options: dict[str, Any], mixed: Any) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        build(masks, mixed, run=True, **options)
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`masks` must be of `dtype`, (H, W) or (H, W, C)")


def test_partners_without_labels_or_with_are_alike() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images, labels = fn.zeros(shape=[8, 8, 3]), fn.zeros(shape=[1])
        return dcm.mix(images, None, dcm.MixConfig(), partners=(images, labels)).images

    with pytest.raises(ValueError, match=r"`partners` must be \(images, labels\) where there are"):
        pipe()
