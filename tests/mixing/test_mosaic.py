"""Mosaic: four images meet at a point, alone and beside the other methods."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.mixing.plan import Size
from tests import reference
from tests.mixing.test_boxes import classes_of, random_boxes, run_boxes
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZES = [(7, 11), (33, 20), (8, 8), (12, 40), (3, 100)]
SIZE = (24, 40)
ALL = ("CutMix", "ResizeMix", "MixUp", "Mosaic")
METHODS = (dcm.CutMix(), dcm.ResizeMix(), dcm.MixUp(alpha=0.5), dcm.Mosaic())


def run_mosaic(
    images: Array,
    labels: Array,
    cfg: dcm.MixConfig,
    *,
    draws: dict[str, Array] | None = None,
    device: str = "cpu",
    iterations: int = 1,
    seed: int = 1,
    known: bool = True,
    **options: Any,
) -> list[dict[str, Array]]:
    """Images, target and the fields of the plan of each batch."""
    fields = ("lam", "box", "partner", "original", "others", "tiled", "blended", "resized")
    found: list[str] = []

    @pipeline_def(
        batch_size=len(images),
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        seed=seed,
        prefetch_queue_depth=1,
    )
    def pipe() -> tuple[Any, ...]:
        pixels = graphs.feed(images, "HWC")
        pixels = pixels.gpu() if device == "gpu" else pixels
        if draws is not None:
            options["params"] = graphs.injected(cfg, draws, images[0].shape[:2])
        if known:
            options["size"] = tuple(images[0].shape[:2])
        mixed = dcm.mix(pixels, graphs.feed(labels), cfg, **options)
        params = {name: getattr(mixed.params, name) for name in fields}
        found[:] = ["images", "target", *(name for name in fields if params[name] is not None)]
        return (mixed.images, mixed.targets, *(x for x in params.values() if x is not None))

    batches = graphs.run(pipe(), iterations)
    return [dict(zip(found, batch, strict=True)) for batch in batches]


def four(batch: dict[str, Array], k: int) -> list[int]:
    original = batch["original"][k] if "original" in batch else k
    return [int(i) for i in (original, batch["partner"][k], *batch["others"][k])]


def kinds_of(images: Array, batch: dict[str, Array]) -> list[str]:
    """The method of each sample; asserts that pixels, lam and labels (one a sample) are right."""
    count, size, found = len(images), images.shape[1:3], []
    for k in range(count):
        ids = four(batch, k)
        box = tuple(batch["box"][k].tolist())
        i, j = ids[:2]
        lam = float(batch["lam"][k])
        shares = np.array([lam, 1 - lam, 0, 0])
        if batch["tiled"][k]:
            assert (box[2], box[3]) == (size[0] - box[0], size[1] - box[1])
            expected = reference.mosaic([images[i] for i in ids], box[:2])
            shares = reference.mosaic_shares(box[:2], size)
            assert lam == np.float32(shares[0])
            found.append("Mosaic")
        elif "blended" in batch and batch["blended"][k]:
            graphs.assert_blended(batch["images"][k], images[i], images[j], lam)
            expected = batch["images"][k]
            found.append("MixUp")
        elif "resized" in batch and batch["resized"][k]:
            expected = reference.resized_into(images[i], images[j], box)
            found.append("ResizeMix")
        else:
            expected = reference.pasted(images[i], images[j], box)
            found.append("CutMix" if box[2] * box[3] else "none")
        assert np.array_equal(batch["images"][k], expected), (k, found[-1])
        row = np.zeros(batch["target"].shape[1])
        np.add.at(row, ids, shares)
        assert np.abs(batch["target"][k] - row).max() < 1e-6
        assert (batch["target"][k] >= 0).all()
        assert (batch["target"][k] <= 1).all()
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scope", [(0.25, 0.75), (0.0, 1.0), (0.29, 0.58)], ids=str)
def test_mosaic_equals_the_reference(
    scope: tuple[float, float], size: tuple[int, int], device: str
) -> None:
    # 5 sizes x 3 ranges x 256 samples, every pixel; the label is the counted share.
    count, rng = 256, np.random.default_rng(list(size))
    images = graphs.distinct_images(rng, count, size)
    draws = {
        "position": rng.choice([0.0, 1 - 1e-12, *rng.random(20)], (count, 2)),
        "partner": rng.integers(0, count, count, dtype=np.int32),
        "others": rng.integers(0, count, (count, 2), dtype=np.int32),
    }
    cfg = dcm.MixConfig(num_classes=count, methods=(dcm.Mosaic(centre=scope),))
    (batch,) = run_mosaic(images, np.arange(count), cfg, draws=draws, device=device)
    assert kinds_of(images, batch) == ["Mosaic"] * count
    assert np.array_equal(batch["others"], draws["others"])
    for k in range(count):
        centre = reference.mosaic_centre(tuple(draws["position"][k]), scope, size)
        assert tuple(batch["box"][k, :2]) == centre


def test_lam_of_a_drawn_plan_is_the_share_of_the_original() -> None:
    draws: Any = graphs.FedDraws({"position": np.random.default_rng(1).random((64, 2))})

    @pipeline_def(batch_size=64, num_threads=1, device_id=None)
    def pipe() -> Any:
        rows = dcm.Mosaic().rows(Size.of_known(SIZE), draws)
        return rows.lam, rows.box

    ((lam, box),) = graphs.run(pipe())
    for k in range(64):
        shares = reference.mosaic_shares(tuple(box[k, 0, :2]), SIZE)
        assert abs(lam[k, 0, 0] - shares[0]) < 1e-12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("methods", "mode"),
    [
        (METHODS, "elem"),
        (METHODS, "batch"),
        (METHODS[::3], "elem"),
        (METHODS[3:], "elem"),
        (METHODS[3:], "batch"),
    ],
    ids=["all", "all, batch", "with CutMix", "alone", "alone, batch"],
)
def test_every_sample_is_mixed_by_one_of_the_methods(
    methods: Any, mode: Any, known: bool, keep_order: bool, device: str
) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, SIZE)
    cfg = dcm.MixConfig(num_classes=32, methods=methods, mode=mode, prob=0.9)
    batches = run_mosaic(
        images,
        np.arange(32),
        cfg,
        iterations=16,
        device=device,
        keep_order=keep_order,
        known=known,
    )
    found = [kinds_of(images, batch) for batch in batches]
    names = {type(method).__name__ for method in methods}
    assert names <= {kind for batch in found for kind in batch} <= {*names, "none"}
    if mode == "batch":  # "none" is also a box without area
        assert all(len(set(batch) - {"none"}) <= 1 for batch in found)
        tiled = [batch["box"][batch["tiled"]] for batch in batches]
        assert all((boxes == boxes[:1]).all() for boxes in tiled)
    assert ("original" in batches[0]) == (not keep_order and len(methods) < 4)


@pytest.mark.gpu
@pytest.mark.parametrize("methods", [METHODS, METHODS[3:]], ids=["all", "alone"])
def test_the_gpu_equals_the_cpu(methods: Any) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (33, 31))
    cfg = dcm.MixConfig(num_classes=32, methods=methods, prob=0.9)
    cpu, gpu = (
        run_mosaic(images, np.arange(32), cfg, iterations=4, device=device)
        for device in ("cpu", "gpu")
    )
    for one, other in zip(cpu, gpu, strict=True):
        pasted = ~one["blended"] if "blended" in one else np.full(32, True)
        assert np.array_equal(one["images"][pasted], other["images"][pasted])
        assert np.abs(one["target"] - other["target"]).max() < 1e-6
        assert all(np.array_equal(one[name], other[name]) for name in ("box", "others", "tiled"))


def test_the_methods_have_their_weights_and_prob_counts() -> None:
    # 60 batches of 64, 5 standard deviations.
    images = graphs.distinct_images(np.random.default_rng(1), 64, SIZE)
    cfg = dcm.MixConfig(num_classes=64, methods=METHODS[2:], weights=(0.3, 0.7), prob=0.8)
    batches = run_mosaic(images, np.arange(64), cfg, iterations=60)
    found = [kind for batch in batches for kind in kinds_of(images, batch)]
    for kind, expected in (("MixUp", 0.24), ("Mosaic", 0.56), ("none", 0.2)):
        tolerance = 5 * np.sqrt(expected * (1 - expected) / len(found))
        assert abs(found.count(kind) / len(found) - expected) < tolerance, kind


@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("partner", ["permutation", "derangement"])
def test_the_draws_are_uniform_and_apart(partner: Any, keep_order: bool) -> None:
    # 600 batches of 16: 9,600 centres and partners; p > 1e-4 by chi-square, correlations below
    # 4.5 / sqrt(9,600).
    images = np.zeros((16, 16, 24, 3), np.uint8)
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.Mosaic(centre=(0.25, 0.75)),), partner=partner)
    batches = run_mosaic(images, np.arange(16), cfg, iterations=600, seed=5, keep_order=keep_order)
    ids = np.array([[four(batch, k) for k in range(16)] for batch in batches])
    centres = np.concatenate([batch["box"][:, :2] for batch in batches])
    for axis, length in enumerate((16, 24)):
        counts = np.bincount(centres[:, axis], minlength=length)
        assert (counts > 0).nonzero()[0].tolist() == list(range(length // 4, length * 3 // 4))
        assert stats.chisquare(counts[counts > 0]).pvalue > 1e-4
    assert (np.sort(ids, axis=1) == np.arange(16)[None, :, None]).all()  # permutations, each
    for k in range(1, 4):
        meets = (ids[..., k] - ids[..., 0]) % 16
        counts = np.bincount(meets.ravel(), minlength=16)
        if partner == "derangement":
            assert counts[0] == 0
            counts = counts[1:]
        assert stats.chisquare(counts).pvalue > 1e-4
        for other in range(1, k):  # also two partners of one sample meet as by chance
            apart = (ids[..., k] - ids[..., other]).ravel() % 16
            share = (1 / 15 if partner == "derangement" else 1 / 16) * apart.size
            assert abs((apart == 0).sum() - share) < 5 * np.sqrt(share)
    drawn = np.column_stack([centres, ids.reshape(-1, 4)[:, 1:]])
    related = np.abs(np.corrcoef(drawn.T) - np.eye(5))
    assert related.max() < 4.5 / np.sqrt(len(drawn))


def test_the_streams_of_the_other_methods_are_what_they_were() -> None:
    # Golden: by a mix of CutMix and MixUp partners and boxes are drawn as without Mosaic.
    images = graphs.distinct_images(np.random.default_rng(1), 16, SIZE)
    with_mosaic = dcm.MixConfig(
        num_classes=16, methods=(dcm.CutMix(), dcm.MixUp(), dcm.Mosaic()), weights=(0.5, 0.5, 0.0)
    )
    without = dcm.MixConfig(num_classes=16, methods=(dcm.CutMix(), dcm.MixUp()))
    one, other = (run_mosaic(images, np.arange(16), cfg)[0] for cfg in (with_mosaic, without))
    assert np.array_equal(one["partner"], other["partner"])
    assert not one["tiled"].any()


def test_smoothing_and_float_rows() -> None:
    rng, count = np.random.default_rng(2), 16
    images = graphs.distinct_images(rng, count, SIZE)
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.Mosaic(),), label_smoothing=0.1)
    rows = rng.random((count, 16)).astype(np.float32)
    as_rows = dataclasses.replace(cfg, label_smoothing=0.0, labels="float")
    for labels, config in ((np.arange(count), cfg), (rows, as_rows)):
        for keep_order in (True, False):
            (batch,) = run_mosaic(images, labels, config, keep_order=keep_order)
            smoothed = np.eye(16) * 0.9 + 0.1 / 16 if config is cfg else rows
            for k in range(count):
                shares = reference.mosaic_shares(tuple(batch["box"][k, :2]), SIZE)
                expected = sum(s * smoothed[i] for s, i in zip(shares, four(batch, k), strict=True))
                assert np.abs(batch["target"][k] - expected).max() < 1e-6


# Boxes and masks


@pytest.mark.parametrize("keep", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.25, 0.1)], ids=str)
@pytest.mark.parametrize("methods", [ALL, ("Mosaic",), ("Mosaic", "CutMix")], ids=str)
def test_boxes_and_classes_equal_the_reference(
    methods: tuple[str, ...], keep: tuple[float, float]
) -> None:
    # 12 x 768 samples, with some 700,000 boxes of the four images.
    for seed, known in ((1, True), (2, False)):
        count, rng = 384, np.random.default_rng([seed, len(methods)])
        kinds, draws = graphs.hand_made(rng, count, SIZE, methods)
        boxes = random_boxes(rng, count, 40)
        classes, ids = classes_of(rng, boxes), [np.arange(2 * len(b)).reshape(-1, 2) for b in boxes]
        out = run_boxes(boxes, (classes, ids), draws, known, keep=keep)
        kept = 0
        for k, kind in enumerate(kinds):
            images = [draws["original"][k], draws["partner"][k], *draws["others"][k]]
            box = tuple(draws["box"][k].tolist())
            if kind == "Mosaic":
                of_four = [boxes[i] for i in images]
                shown, expected = reference.mosaic_boxes(of_four, box[:2], SIZE, keep[1])
            else:
                own, other = (boxes[i] for i in images[:2])
                *two, expected = reference.shown_boxes(own, other, box, SIZE, keep, method=kind)
                shown = [*two, [], []]
            rows = list(zip(images, shown, strict=True))
            assert np.array_equal(out[0][k], expected), (k, kind)
            assert np.array_equal(out[1][k], np.concatenate([classes[i][s] for i, s in rows]))
            assert np.array_equal(out[2][k], np.concatenate([ids[i][s] for i, s in rows]))
            assert [x[k].dtype for x in out] == [np.float32, np.int32, np.int64]
            kept += len(expected)
        assert kept > 1_000


def test_boxes_of_a_mosaic_by_hand() -> None:
    # Four images of 24 x 40 meet at (6, 30), that is, at (0.25, 0.75) of the height and width.
    boxes = [
        [(0.5, 0.75, 1.0, 1.0)],  # top left: right and bottom of it, moved by (-0.25, -0.75)
        [(0.0, 0.5, 0.5, 1.0), (0.0, 0.9, 0.1, 1.0)],  # top right: a fourth of the first is shown
        [(0.0, 0.0, 0.2, 0.5), (0.25, 0.0, 1.0, 0.75)],  # bottom left: nothing of the first
        [(0.0, 0.0, 0.5, 0.5)],  # bottom right: half of it is shown, which is not more than half
    ]
    draws = {
        "lam": np.zeros(4, np.float32),
        "box": np.array([(6, 30, 18, 10)] * 4, np.int32),
        "partner": np.array([1] * 4, np.int32),
        "others": np.array([(2, 3)] * 4, np.int32),
        "tiled": np.ones(4, bool),
    }
    arrays = [np.array(rows, np.float32) for rows in boxes]
    classes = [np.array(row) for row in ([0], [10, 11], [20, 21], [30])]
    found, labels = run_boxes(arrays, (classes,), draws)
    expected = [(0.25, 0, 0.75, 0.25), (0.75, 0.15, 0.85, 0.25), (0, 0.25, 0.75, 1)]
    assert labels[0].tolist() == [0, 11, 21]
    assert np.allclose(found[0], expected, atol=1e-7)
    found, labels = run_boxes(arrays, (classes,), draws, keep=(0.5, 0.2))
    assert labels[0].tolist() == [0, 10, 11, 21, 30]
    assert np.allclose(found[0][1], (0.75, 0, 1.0, 0.25), atol=1e-7)


def test_a_batch_without_any_box(capfd: pytest.CaptureFixture[str]) -> None:
    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, *SIZE, 3), np.uint8), "HWC")
        params = dcm.mix(images, None, dcm.MixConfig(methods=METHODS)).params
        boxes, classes = np.zeros((16, 0, 4), np.float32), np.zeros((16, 0, 1), np.int32)
        return dcm.mix_boxes(graphs.feed(boxes), graphs.feed(classes), params)

    boxes, classes = pipe().run()
    assert boxes.shape() == [(0, 4)] * 16
    assert classes.shape() == [(0, 1)] * 16
    assert "arning" not in capfd.readouterr().err


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("methods", [ALL, ("Mosaic",)], ids=str)
@pytest.mark.parametrize(("dtype", "keep_order"), [("uint8", True), ("int64", False)])
def test_masks_equal_the_reference(
    dtype: Any, keep_order: bool, methods: tuple[str, ...], device: str
) -> None:
    # 4 x 192 masks, and a mask that is the first channel of its image follows it.
    count, rng = 192, np.random.default_rng(3)
    kinds, draws = graphs.hand_made(rng, count, SIZE, methods)
    if keep_order:
        draws["original"] = np.arange(count, dtype=np.int32)
    masks = rng.integers(0, 91, (count, *SIZE)).astype(dtype)

    @pipeline_def(batch_size=count, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((count, *SIZE, 3), np.uint8), "HWC")
        fed = graphs.feed(masks)
        params = graphs.plan_of_draws(images, draws, size=SIZE)
        if keep_order:
            params = params._replace(original=None)
        fed = fed.gpu() if device == "gpu" else fed
        return dcm.mix_masks(fed, params, dtype=dtype, blend="heavier")

    ((out,),) = graphs.run(pipe())
    for k, kind in enumerate(kinds):
        ids = [draws["original"][k], draws["partner"][k], *draws["others"][k]]
        own, other, box = masks[ids[0]], masks[ids[1]], tuple(draws["box"][k].tolist())
        if kind == "Mosaic":
            expected = reference.mosaic([masks[i] for i in ids], box[:2])
        elif kind == "ResizeMix":
            expected = reference.resized_into(own, other, box)
        elif kind == "MixUp":
            expected = own if draws["lam"][k] >= 0.5 else other
        else:
            expected = reference.pasted(own, other, box)
        assert np.array_equal(out[k], expected), (k, kind)


def test_a_plan_repeats_a_mosaic_on_other_data() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, SIZE)
    cfg = dcm.MixConfig(num_classes=16, methods=METHODS)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        first = dcm.mix(pixels, labels, cfg)
        again = dcm.mix(pixels, labels, cfg, params=first.params)
        return first.images, again.images, first.targets, again.targets

    for _ in range(4):
        ((one, same, target, alike),) = graphs.run(pipe())
        assert np.array_equal(one, same)
        assert np.abs(target - alike).max() < 1e-7


@pytest.mark.parametrize("on", [True, False])
def test_switched_off_nothing_is_mixed(on: bool) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, SIZE)
    cfg = dcm.MixConfig(num_classes=16, methods=(dcm.Mosaic(centre=(0.4, 0.6)),))

    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        enabled = graphs.feed(np.full(16, on))
        mixed = dcm.mix(
            graphs.feed(images, "HWC"), graphs.feed(np.arange(16)), cfg, enabled=enabled
        )
        return mixed.images, mixed.params.tiled, mixed.params.lam

    ((out, tiled, lam),) = graphs.run(pipe())
    assert (tiled == on).all()
    assert np.array_equal(out, images) == (not on)
    assert (lam == 1).all() == (not on)


# Refused


@pytest.mark.parametrize("partner", ["flip", "roll"])
def test_partners_that_are_not_three_are_refused(partner: Any) -> None:
    rule = '`partner` must be "permutation" or "derangement" with Mosaic'
    with pytest.raises(ValueError, match=rule):
        dcm.MixConfig(methods=METHODS, partner=partner)


def test_pairs_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match='`targets` must be "soft" with Mosaic'):
        dcm.MixConfig(methods=(dcm.Mosaic(),), targets="pair")


@pytest.mark.parametrize(
    ("centre", "error"),
    [
        *(((low, high), ValueError) for low, high in ((0.5, 0.5), (-0.1, 0.5), (0.5, 1.1))),
        *(("half", TypeError), ((0.1, 0.2, 0.3), TypeError), (0.5, TypeError)),
    ],
    ids=str,
)
def test_a_wrong_centre_is_refused(centre: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`centre` must be"):
        dcm.Mosaic(centre=centre)


def build(**options: Any) -> None:
    cfg = options.pop("cfg", dcm.MixConfig(num_classes=4, methods=(dcm.Mosaic(),)))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 8, 8, 3), np.uint8), "HWC")
        labels = graphs.feed(np.zeros(16, np.int32))
        given = {name: make(images, labels) for name, make in options.items()}
        return dcm.mix(images, labels, cfg, **given).images

    pipe().build()


def test_a_second_batch_and_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match="`methods` must not have Mosaic with `partners`"):
        build(partners=lambda images, labels: (images, labels))
    with pytest.raises(ValueError, match="`methods` must be CutMix, ObjectCutMix or MixUp for vol"):
        build(layout=lambda *_: "DHW", size=lambda *_: (8, 8, 8))


def test_wrong_plans_are_refused() -> None:
    plan = {"lam": np.zeros(16, np.float32), "partner": np.zeros(16, np.int32)}
    plan["box"] = np.array([(2, 3, 6, 5)] * 16, np.int32)
    four_of_them = {"tiled": np.ones(16, bool), "others": np.zeros((16, 2), np.int32)}

    def params(**values: Array) -> dcm.MixParams:
        return dcm.MixParams(**{name: graphs.feed(x) for name, x in {**plan, **values}.items()})

    for name in four_of_them:
        with pytest.raises(ValueError, match="`params` must have `others` where it has `tiled`"):
            build(params=lambda *_, name=name: params(**{name: four_of_them[name]}))
    pairs = dcm.MixConfig(num_classes=4, targets="pair")
    with pytest.raises(ValueError, match='`targets` must be "soft" with `params` of Mosaic'):
        build(cfg=pairs, params=lambda *_: params(**four_of_them))
    build(params=lambda *_: params(**four_of_them))
    wrong = {
        "bottom right corner": {"box": np.array([(2, 3, 5, 5)] * 16, np.int32)},
        "a partner in the batch": {"others": np.full((16, 2), 16, np.int32)},
    }
    for rule, values in wrong.items():
        images = graphs.distinct_images(np.random.default_rng(1), 16, (8, 8))

        @pipeline_def(batch_size=16, num_threads=1, device_id=None)
        def pipe(values: Any = values, images: Any = images) -> Any:
            pixels = graphs.feed(images, "HWC")
            given = params(**{**four_of_them, **values})
            return dcm.mix(pixels, None, dcm.MixConfig(), params=given).images

        with pytest.raises(RuntimeError) as error:
            pipe().run()
        assert re.search(rule, str(explain(error.value))), str(explain(error.value))


def test_conditionals_change_nothing() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, SIZE)
    boxes = random_boxes(np.random.default_rng(1), 16)
    classes = classes_of(np.random.default_rng(1), boxes)
    cfg = dcm.MixConfig(num_classes=16, methods=METHODS)

    def outputs() -> Any:
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        mixed = dcm.mix(pixels, labels, cfg, size=SIZE)
        found = dcm.mix_boxes(graphs.feed(boxes), graphs.feed(classes), mixed.params)
        masks = dcm.mix_masks(fn.copy(pixels), mixed.params, blend="heavier")
        return mixed.images, mixed.targets, *found, masks

    batches = []
    for conditionals in (False, True):
        pipe = pipeline_def(
            batch_size=16, num_threads=2, device_id=None, seed=1, enable_conditionals=conditionals
        )(outputs)()
        batches.append([[np.array(x) for x in output] for output in pipe.run()])
    for one, other in zip(*batches, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
