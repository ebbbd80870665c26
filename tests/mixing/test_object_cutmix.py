"""ObjectCutMix against NumPy: boxes around the objects of the partner's mask, 2-D and 3-D."""

from __future__ import annotations

import operator
import warnings
from functools import reduce
from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def
from scipy import ndimage, stats

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZE = (33, 40)


def random_masks(rng: np.random.Generator, count: int, size: tuple[int, ...]) -> Array:
    """Blobs of classes 1 to 3, and of 255; one in eight masks has none."""
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        if rng.random() < 1 / 8:
            continue
        for value in (1, 2, 3, 255):
            smooth = ndimage.gaussian_filter(rng.normal(size=size), 2.5)
            mask[smooth > np.quantile(smooth, 0.93)] = value
    return masks


def boxes_of_objects(mask: Array, classes: Any = None) -> set[tuple[int, ...]]:
    """The box around each connected region of one value, (y, x, h, w)."""
    found = set()
    for value in np.unique(mask) if classes is None else classes:
        regions, _ = ndimage.label(mask == value)
        for sides in ndimage.find_objects(regions) if value else ():
            start, stop = ([getattr(side, end) for side in sides] for end in ("start", "stop"))
            found.add((*start, *(b - a for a, b in zip(start, stop, strict=True))))
    return found


def pasted(image: Array, partner: Array, box: Any) -> Array:
    out, axes = image.copy(), len(box) // 2
    where = tuple(slice(a, a + s) for a, s in zip(box[:axes], box[axes:], strict=True))
    out[where] = partner[where]
    return out


def run(
    images: Array, masks: Array, cfg: dcm.MixConfig, *, device: str = "cpu", **options: Any
) -> list[list[Array]]:
    """Images, masks, lam, box, partner, original, whether another method was drawn, targets."""
    count, layout = len(images), options.get("layout")
    iterations = options.pop("iterations", 3)

    @pipeline_def(batch_size=count, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        objects = graphs.feed(masks)
        of_images = graphs.feed(images, layout or "HWC")
        if device == "gpu":
            of_images = of_images.gpu()
        mixed = dcm.mix(of_images, graphs.feed(np.arange(count)), cfg, objects=objects, **options)
        params = mixed.params
        of_masks = {"layout": layout} if layout else {}
        if masks.ndim == images.ndim - 1 and not layout:
            of_masks = {"layout": "HW"}
        follow = dcm.mix_masks(objects, params, blend="heavier", **of_masks)
        original = params.partner * 0 - 1 if params.original is None else params.original
        others = [flag for flag in (params.blended, params.resized) if flag is not None]
        other = reduce(operator.or_, others, params.partner < 0)
        plan = (params.lam, params.box, params.partner, original, other)
        return (mixed.images, follow, *plan, mixed.targets)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        pipeline = pipe()
    return graphs.run(pipeline, iterations)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("classes", [(), (1, 3)])
@pytest.mark.parametrize("options", [{}, {"size": SIZE}, {"keep_order": False}], ids=str)
def test_the_box_is_that_of_an_object_of_the_partner(
    options: dict[str, Any], classes: Any, device: str
) -> None:
    # 4 batches of 64: bytes, lam, masks and labels, with the drawn boxes read back.
    rng = np.random.default_rng(3)
    images, masks = graphs.distinct_images(rng, 64, SIZE), random_masks(rng, 64, SIZE)
    cfg = dcm.MixConfig(
        num_classes=64, methods=(dcm.ObjectCutMix(classes=classes),), partner="derangement"
    )
    unmixed = 0
    for out, of_mask, lam, box, partner, original, by_another, target in run(
        images, masks, cfg, device=device, iterations=4, **options
    ):
        own = np.arange(64) if (original == -1).all() else original
        assert not by_another.any()
        for k, (i, j) in enumerate(zip(own, partner, strict=True)):
            possible = boxes_of_objects(masks[j], classes or None)
            cut = tuple(box[k].tolist())
            if possible:
                assert cut in possible
            else:
                assert cut == (*SIZE, 0, 0)
                unmixed += 1
            assert np.array_equal(out[k], reference.pasted(images[i], images[j], cut))
            assert np.array_equal(of_mask[k], pasted(masks[i], masks[j], cut))
            share = reference.original_pixels(cut, SIZE) / (SIZE[0] * SIZE[1])
            assert lam[k] == np.float32(share)
            row = reference.mixed_row(np.eye(64)[i], np.eye(64)[j], lam[k])
            assert np.abs(target[k] - row).max() < 1e-6
    assert 10 < unmixed < 80


@pytest.mark.parametrize("mode", ["elem", "batch"])
@pytest.mark.parametrize("partner", ["permutation", "same"])
def test_beside_other_methods(mode: Any, partner: Any) -> None:
    rng = np.random.default_rng(5)
    images, masks = graphs.distinct_images(rng, 32, SIZE), random_masks(rng, 32, SIZE)
    methods = (dcm.ObjectCutMix(), dcm.ResizeMix(), dcm.MixUp())
    cfg = dcm.MixConfig(
        num_classes=32,
        methods=methods,
        weights=(0.7, 0.2, 0.1),
        mode=mode,
        partner=partner,  # all labels differ: with "same" nobody is mixed
        prob=0.9,
    )

    cut = 0
    for out, _, lam, box, other, _, by_another, _ in run(images, masks, cfg, iterations=8):
        for k, j in enumerate(other):
            if by_another[k]:
                continue
            found = tuple(box[k].tolist())
            assert found in {*boxes_of_objects(masks[j]), (*SIZE, 0, 0)}
            cut += lam[k] < 1
            assert np.array_equal(out[k], reference.pasted(images[k], images[j], found))
    assert (cut == 0) == (partner == "same")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_volumes(dtype: Any, device: str) -> None:
    size, rng = (12, 17, 15), np.random.default_rng(7)
    volumes = rng.integers(0, 256, (8, *size)).astype(dtype)
    masks = random_masks(rng, 8, size)
    cfg = dcm.MixConfig(num_classes=8, methods=(dcm.ObjectCutMix(classes=(1, 2)),))
    for out, of_mask, lam, box, partner, *_ in run(
        volumes, masks, cfg, device=device, size=size, layout="DHW", dtype=np.dtype(dtype).name
    ):
        for k, j in enumerate(partner):
            possible = boxes_of_objects(masks[j], (1, 2)) or {(*size, 0, 0, 0)}
            cut = tuple(box[k].tolist())
            assert cut in possible
            assert np.array_equal(out[k], pasted(volumes[k], volumes[j], cut))
            assert np.array_equal(of_mask[k], pasted(masks[k], masks[j], cut))
            assert lam[k] == np.float32(1 - np.prod(cut[3:]) / np.prod(size))


def test_with_a_second_batch_the_masks_are_its_own() -> None:
    rng = np.random.default_rng(9)
    images, others = (graphs.distinct_images(rng, 16, SIZE) for _ in range(2))
    masks = random_masks(rng, 16, SIZE)
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.ObjectCutMix(),))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        partners = graphs.feed(others, "HWC"), None
        fed = graphs.feed(images, "HWC")
        mixed = dcm.mix(fed, None, cfg, objects=graphs.feed(masks), partners=partners)
        return mixed.images, mixed.params.box

    ((out, box),) = graphs.run(pipe())
    for k in range(16):
        cut = tuple(box[k].tolist())
        assert cut in (boxes_of_objects(masks[k]) or {(*SIZE, 0, 0)})
        assert np.array_equal(out[k], reference.pasted(images[k], others[k], cut))


def test_a_plan_is_repeated_on_other_data() -> None:
    rng = np.random.default_rng(9)
    images, masks = graphs.distinct_images(rng, 16, SIZE), random_masks(rng, 16, SIZE)
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.ObjectCutMix(), dcm.MixUp()))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        fed = graphs.feed(images, "HWC")
        mixed = dcm.mix(fed, None, cfg, objects=graphs.feed(masks))
        again = dcm.mix(fed, None, cfg, params=mixed.params)
        params = [(one.params.lam, one.params.box, one.params.blended) for one in (mixed, again)]
        return mixed.images, again.images, *params[0], *params[1]

    ((one, other, *plans),) = graphs.run(pipe())
    assert np.array_equal(one, other)
    for a, b in zip(plans[:3], plans[3:], strict=True):
        assert np.array_equal(a, b)


def test_every_object_of_a_class_is_as_likely() -> None:
    # 16,000 draws; chi-square over classes, and objects within a class, p > 1e-3. Every batch draws
    # anew.
    mask = np.zeros(SIZE, np.uint8)
    for value, places in {1: [(1, 1), (1, 9), (9, 1), (9, 9)], 2: [(20, 20)]}.items():
        for y, x in places:
            mask[y : y + 3, x : x + 4] = value
    images, masks = np.zeros((80, *SIZE, 1), np.uint8), np.tile(mask, (80, 1, 1))
    cfg = dcm.MixConfig(num_classes=80, methods=(dcm.ObjectCutMix(),))
    boxes = np.stack([one[3] for one in run(images, masks, cfg, iterations=200)])
    assert len({batch.tobytes() for batch in boxes}) == 200
    found, counts = np.unique(boxes.reshape(-1, 4), axis=0, return_counts=True)
    assert len(found) == 5
    assert stats.chisquare(counts, [2000, 2000, 2000, 2000, 8000]).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32"])
def test_masks_of_other_types(dtype: str) -> None:
    rng = np.random.default_rng(2)
    images, masks = np.zeros((16, *SIZE, 1), np.uint8), random_masks(rng, 16, SIZE)
    masks[masks == 255] = 3
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.ObjectCutMix(),), partner="roll")

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        objects = graphs.feed(masks.astype(dtype)[..., None])
        return dcm.mix(graphs.feed(images, "HWC"), None, cfg, objects=objects).params.box

    ((box,),) = graphs.run(pipe())
    for k in range(16):
        possible = boxes_of_objects(masks.astype(dtype)[k - 1])
        assert tuple(box[k].tolist()) in (possible or {(*SIZE, 0, 0)})


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros((16, *SIZE), np.float32),
        np.zeros((16, *SIZE), np.int64),
        np.zeros((16, *SIZE[::-1]), np.uint8),
        np.zeros((16, *SIZE, 3), np.uint8),
    ],
    ids=lambda masks: f"{masks.dtype} {masks.shape}",
)
def test_wrong_masks_are_named(masks: Array) -> None:
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.ObjectCutMix(),))
    images = np.zeros((16, *SIZE, 3), np.uint8)

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        fed = graphs.feed(images, "HWC")
        return dcm.mix(fed, None, cfg, objects=graphs.feed(masks)).params.box

    with pytest.raises(RuntimeError) as raised:
        pipe().run()
    assert (explain(raised.value) or "").startswith("`objects` must be masks of bool or of int")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "pair", "partner": "flip"}, '`mode` must be "elem" or "batch" with ObjectCutMix'),
        ({"methods": (dcm.ObjectCutMix(),) * 2}, "`methods` must have one ObjectCutMix at most"),
        ({"methods": (dcm.ObjectCutMix(), dcm.DetectionCutMix())}, "no DetectionCutMix beside it"),
    ],
)
def test_wrong_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dcm.MixConfig(**{"num_classes": 9, "methods": (dcm.ObjectCutMix(),), **options})


def test_masks_must_be_given_and_only_then() -> None:
    def build(objects: bool, *methods: Any) -> Any:
        @pipeline_def(batch_size=16, num_threads=1, device_id=None)
        def pipe() -> Any:
            images = graphs.feed(np.zeros((16, *SIZE, 3), np.uint8), "HWC")
            given = {"objects": graphs.feed(np.zeros((16, *SIZE), np.uint8))} if objects else {}
            return dcm.mix(images, None, dcm.MixConfig(methods=methods), **given).images

        return pipe()

    with pytest.raises(ValueError, match="`objects` must be given where `methods` has ObjectCutM"):
        build(False, dcm.ObjectCutMix())
    with pytest.raises(ValueError, match="`objects` must be left out unless `methods` has Detect"):
        build(True, dcm.CutMix())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": 3}, TypeError, "`classes` must be a sequence of ints, got 3"),
        ({"classes": (1, 1)}, ValueError, "`classes` must be different, and without `background`"),
        ({"classes": (0, 1)}, ValueError, "`classes` must be different, and without `background`"),
        ({"classes": (0.5,)}, TypeError, "`classes` must be an int"),
        ({"background": "0"}, TypeError, "`background` must be an int"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dcm.ObjectCutMix(**options)
