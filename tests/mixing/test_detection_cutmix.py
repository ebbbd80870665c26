"""DetectionCutMix: areas that touch no box of the image, as Ultralytics chooses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def
from nvidia.dali.pipeline import do_not_convert
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix.mixing.avoidance import resolved
from dali_cutmix.mixing.plan import Beside, Rows, Size, completed
from tests import reference
from tests.mixing.test_boxes import classes_of, random_boxes
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZE = (24, 40)
ALONE = (dcm.DetectionCutMix(),)
ALL = (dcm.DetectionCutMix(), dcm.CutMix(), dcm.MixUp(), dcm.ResizeMix(), dcm.Mosaic())


def few_boxes(rng: np.random.Generator, count: int) -> list[Array]:
    """Boxes of each sample, none to eight, small or on a grid, some without area."""
    found = []
    for rows in random_boxes(rng, count, 8):
        small = rows[:8].copy()
        small[:, 2:] = small[:, :2] + (small[:, 2:] - small[:, :2]) * np.float32(0.375)
        found.append(small)
    return found


def random_areas(rng: np.random.Generator, count: int) -> Array:
    """Three areas of each sample, some empty, at every edge."""
    ends = np.sort(rng.integers(0, np.array(SIZE) + 1, (count, 3, 2, 2)), axis=2)
    whole = rng.random((count, 3, 1, 1)) < 0.05
    ends = np.where(whole, np.array([[0, 0], SIZE]), ends)
    areas = np.concatenate([ends[:, :, 0], ends[:, :, 1] - ends[:, :, 0]], axis=2)
    empty = areas[:, :, 2:].prod(2) == 0
    areas[empty] = (*SIZE, 0, 0)
    return areas.astype(np.int32)


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_equals_the_reference(seed: int) -> None:
    # 4 x 1,024 samples, with injected areas and order; boxes by mix_boxes.
    count, rng = 1024, np.random.default_rng(seed)
    boxes, areas = few_boxes(rng, count), random_areas(rng, count)
    classes, order = classes_of(rng, boxes), rng.integers(0, 4, (count, 3, 1), dtype=np.int32)
    partner = rng.integers(0, count, count, dtype=np.int32)

    @pipeline_def(batch_size=count, num_threads=2, device_id=None)
    def pipe() -> Any:
        size, fed = Size.of_known(SIZE), graphs.feed(boxes)
        params = dcm.MixParams(
            lam=graphs.feed(np.ones(count, np.float32)),
            box=size.nowhere(),
            avoids=graphs.feed(np.ones(count, bool)),
        )
        index = graphs.feed(partner)
        other = graphs.feed([boxes[j] for j in partner])
        columns = graphs.feed(np.concatenate([areas.reshape(count, -1), order[:, :, 0]], axis=1))
        area = resolved(3, columns, Beside((fed, other)), size)
        rows = Rows(params.lam, avoids=params.avoids)
        params = completed(params, rows, size, [area])._replace(partner=index, size=size)
        found = dcm.mix_boxes(fed, graphs.feed(classes), params)
        return (params.lam, params.box, *params.regions[:2], *found)

    lam, box, anchors, shapes, *found = ([np.array(x) for x in out] for out in pipe().run())
    mixed = 0
    for k, j in enumerate(partner):
        expected, coming = reference.avoiding_area(
            areas[k], order[k, :, 0], boxes[k], boxes[j], SIZE
        )
        assert tuple(box[k]) == expected, k
        y, x, h, w = expected
        assert lam[k] == np.float32(1 - h * w / (SIZE[0] * SIZE[1]))
        assert anchors[k].tolist() == [[0, 0], [y, x]]
        assert shapes[k].tolist() == [[*SIZE], [h, w]]
        clipped = [
            np.clip(boxes[j][i], *(np.array([at / 40, up / 24] * 2) for at, up in ends))
            for i in coming
            for ends in [[(x, y), (x + w, y + h)]]
        ]
        assert np.array_equal(found[1][k], [*classes[k], *classes[j][coming]])
        assert np.array_equal(found[0][k][: len(boxes[k])], boxes[k])
        if clipped:
            assert np.abs(found[0][k][len(boxes[k]) :] - clipped).max() < 1e-6
            mixed += 1
    assert 150 < mixed < 900


def run_mix(
    images: Array, boxes: list[Array], cfg: dcm.MixConfig, iterations: int, **options: Any
) -> list[dict[str, Any]]:
    """Images, targets, boxes, classes and plans of each batch. The class is the sample."""
    device, known = options.pop("device", "cpu"), options.pop("known", True)
    fields = ("lam", "box", "partner", "original", "avoids", "tiled", "blended", "resized")
    conditionals = options.pop("enable_conditionals", False)
    names: list[str] = []
    classes = [np.full(len(rows), i) for i, rows in enumerate(boxes)]

    @do_not_convert
    def outputs() -> Any:
        pixels, fed = graphs.feed(images, "HWC"), graphs.feed(boxes)
        pixels = pixels.gpu() if device == "gpu" else pixels
        if known:
            options["size"] = SIZE
        labels = graphs.feed(np.arange(len(images)))
        mixed = dcm.mix(pixels, labels, cfg, objects=fed, **options)
        params = {name: getattr(mixed.params, name) for name in fields}
        params = {name: x for name, x in params.items() if x is not None}
        found = dcm.mix_boxes(fed, graphs.feed(classes), mixed.params)
        names[:] = ["images", "target", "boxes", "classes", *params]
        return (mixed.images, mixed.targets, *found, *params.values())

    @pipeline_def(
        batch_size=len(images),
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        seed=options.pop("seed", 1),
        enable_conditionals=conditionals,
        prefetch_queue_depth=1,
    )
    def pipe() -> Any:
        return outputs()

    built = pipe()
    return [
        dict(zip(names, ([np.array(x) for x in o.as_cpu()] for o in built.run()), strict=True))
        for _ in range(iterations)
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize(
    ("methods", "mode", "known"),
    [(ALONE, "elem", True), (ALONE, "batch", True), (ALL, "elem", True), (ALL, "elem", False)],
    ids=["alone", "batch", "all", "all, size unknown"],
)
def test_what_is_cut_touches_no_box(
    methods: Any, mode: Any, known: bool, keep_order: bool, device: str
) -> None:
    rng = np.random.default_rng(1)
    images, boxes = graphs.distinct_images(rng, 32, SIZE), few_boxes(rng, 32)
    cfg = dcm.MixConfig(num_classes=32, methods=methods, mode=mode, prob=0.9)
    cut = seen = 0
    for batch in run_mix(images, boxes, cfg, 12, known=known, keep_order=keep_order, device=device):
        for k in range(32):
            if not batch["avoids"][k]:
                continue
            i = int(batch["original"][k]) if "original" in batch else k
            j, box, seen = int(batch["partner"][k]), tuple(batch["box"][k].tolist()), seen + 1
            area, lam = np.array([box], np.int32), float(batch["lam"][k])
            assert np.array_equal(batch["images"][k], reference.pasted(images[i], images[j], box))
            assert not reference.inside_fractions(area, boxes[i], SIZE).any()
            inside = reference.inside_fractions(area, boxes[j], SIZE)[0]
            coming = int((inside >= np.float32(0.1)).sum())
            assert batch["classes"][k].tolist() == [i] * len(boxes[i]) + [j] * coming
            assert (coming > 0) == (lam < 1)
            cut += lam < 1
            row = np.zeros(32)
            np.add.at(row, [i, j], [lam, 1 - lam])
            assert np.abs(batch["target"][k] - row).max() < 1e-6
    assert cut > seen / 10 > 0


def test_without_boxes_nothing_is_mixed_and_where_all_is_free_everything() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, SIZE)
    cfg = dcm.MixConfig(num_classes=16, methods=ALONE)
    none = np.zeros((0, 4), np.float32)
    for batch in run_mix(images, [none] * 16, cfg, 3):
        assert np.array_equal(batch["images"], images)
        assert (np.array(batch["lam"]) == 1).all()
    whole = [np.array([(0, 0, 1, 1)], np.float32)] * 16
    for batch in run_mix(images, whole, cfg, 3):
        # An area of no pixels touches nothing, but no box comes with it either.
        assert np.array_equal(batch["images"], images)


def test_the_areas_are_those_of_cutmix_and_chosen_alike() -> None:
    # Every second image has one box, of a pixel in its corner, and gives to the others, which have
    # none: 4,000 areas, all three free, those at the corner are cut. What is cut there is CutMix's
    # at the same place, by KS, p > 1e-4.
    images = np.zeros((16, *SIZE, 3), np.uint8)
    corner = np.array([(0, 0, 1 / 40, 1 / 24)], np.float32)
    boxes = [corner if k % 2 else corner[:0] for k in range(16)]
    cfg = dcm.MixConfig(num_classes=16, methods=ALONE, partner="roll")
    areas = []
    for batch in run_mix(images, boxes, cfg, 500, seed=3):
        areas += [x for x in np.array(batch["box"])[::2] if x[2] * x[3]]
    plain = dcm.MixConfig(num_classes=16, methods=(dcm.CutMix(),))
    pipe = graphs.mix_pipeline(images, np.zeros(16, int), plain, seed=4, known=True)
    drawn = np.concatenate([batch[2] for batch in graphs.run(pipe, 500)])
    at_corner = drawn[(drawn[:, :2] == 0).all(1) & (drawn[:, 2:].prod(1) > 0)]
    share = len(at_corner) / len(drawn)
    assert abs(len(areas) / 4000 - share) < 5 * np.sqrt(share / 4000 + share / 8000)
    for axis in (2, 3):
        assert stats.ks_2samp(np.array(areas)[:, axis], at_corner[:, axis]).pvalue > 1e-4


def test_of_how_many_free_areas_one_is_chosen_does_not_matter() -> None:
    # As none is more likely by its size. 300 batches of 16, p > 1e-4 by KS.
    images = np.zeros((16, *SIZE, 3), np.uint8)
    boxes = [np.array([(0, 0, 1, 0.03)], np.float32)] * 16
    sizes: dict[int, list[float]] = {}
    for candidates in (1, 8):
        cfg = dcm.MixConfig(
            num_classes=16, methods=(dcm.DetectionCutMix(candidates=candidates),), prob=1.0
        )
        batches = run_mix(images, [b[:0] if k % 2 else b for k, b in enumerate(boxes)], cfg, 300)
        sizes[candidates] = [lam for batch in batches for lam in batch["lam"][1::2] if lam < 1]
    # Every second image has no boxes, so that all areas are free.
    assert stats.ks_2samp(sizes[1], sizes[8]).pvalue > 1e-4
    assert min(map(len, sizes.values())) > 300


def refused(**options: Any) -> None:
    cfg = options.pop("cfg", dcm.MixConfig(num_classes=4, methods=ALONE))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 8, 8, 3), np.uint8), "HWC")
        labels = graphs.feed(np.zeros(16, np.int32))
        given = {name: make(images, labels) for name, make in options.items()}
        return dcm.mix(images, labels, cfg, **given).images

    pipe().build()


def test_objects_are_given_where_they_are_needed() -> None:
    def some(*_: Any) -> Any:
        return graphs.feed(np.zeros((16, 1, 4), np.float32))

    refused(objects=some)
    with pytest.raises(ValueError, match="`objects` must be given where `methods` has Detection"):
        refused()
    with pytest.raises(ValueError, match="`objects` must be left out unless"):
        refused(cfg=dcm.MixConfig(num_classes=4), objects=some)
    with pytest.raises(TypeError, match="`objects` must be a DataNode"):
        refused(objects=lambda *_: np.zeros((1, 4)))
    with pytest.raises(ValueError, match="`methods` must not have DetectionCutMix with `partners`"):
        refused(objects=some, partners=lambda images, labels: (images, labels))
    with pytest.raises(ValueError, match="`methods` must be CutMix, ObjectCutMix or MixUp for vol"):
        refused(objects=some, layout=lambda *_: "DHW", size=lambda *_: (8, 8, 8))


@pytest.mark.parametrize("methods", [ALONE, ALL], ids=["alone", "all"])
def test_conditionals_change_nothing(methods: Any) -> None:
    rng = np.random.default_rng(1)
    images, boxes = graphs.distinct_images(rng, 16, SIZE), few_boxes(rng, 16)
    cfg = dcm.MixConfig(num_classes=16, methods=methods)
    one, other = (
        run_mix(images, boxes, cfg, 2, enable_conditionals=flag) for flag in (False, True)
    )
    for mine, same in zip(one, other, strict=True):
        for name, values in mine.items():
            assert all(np.array_equal(a, b) for a, b in zip(values, same[name], strict=True)), name


@pytest.mark.parametrize("on", [True, False])
def test_switched_off_nothing_is_mixed(on: bool) -> None:
    rng = np.random.default_rng(1)
    images, boxes = graphs.distinct_images(rng, 16, SIZE), few_boxes(rng, 16)
    cfg = dcm.MixConfig(num_classes=16, methods=ALONE)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        mixed = dcm.mix(
            graphs.feed(images, "HWC"),
            None,
            cfg,
            objects=graphs.feed(boxes),
            enabled=graphs.feed(np.full(16, on)),
        )
        return mixed.images, mixed.params.lam

    ((out, lam),) = graphs.run(pipe())
    assert np.array_equal(out, images) == (lam == 1).all() == (not on)


def test_a_plan_repeats_it_on_other_data() -> None:
    rng = np.random.default_rng(1)
    images, boxes = graphs.distinct_images(rng, 16, SIZE), few_boxes(rng, 16)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        pixels, fed = graphs.feed(images, "HWC"), graphs.feed(boxes)
        cfg = dcm.MixConfig(methods=ALONE)
        first = dcm.mix(pixels, None, cfg, objects=fed)
        again = dcm.mix(pixels, None, dcm.MixConfig(), params=first.params)
        classes = graphs.feed([np.arange(len(rows)) for rows in boxes])
        found = [dcm.mix_boxes(fed, classes, mixed.params) for mixed in (first, again)]
        return first.images, again.images, *found[0], *found[1]

    one, same, *found = ([np.array(x) for x in out] for out in pipe().run())
    for k in range(16):
        assert np.array_equal(one[k], same[k])
        assert np.array_equal(found[0][k], found[2][k])
        assert np.array_equal(found[1][k], found[3][k])
    assert any(not np.array_equal(a, b) for a, b in zip(one, images, strict=True))


def test_what_cannot_be_is_refused_when_it_is_configured() -> None:
    with pytest.raises(ValueError, match='`mode` must be "elem" or "batch" with DetectionCutMix'):
        dcm.MixConfig(methods=ALONE, mode="pair", partner="flip")
    with pytest.raises(ValueError, match="`methods` must have one DetectionCutMix at most"):
        dcm.MixConfig(methods=ALONE * 2)
    with pytest.raises(ValueError, match="`candidates` must be"):
        dcm.DetectionCutMix(candidates=0)
    with pytest.raises(ValueError, match="`alpha` must be"):
        dcm.DetectionCutMix(alpha=0)
