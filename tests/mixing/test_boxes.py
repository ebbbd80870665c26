"""mix_boxes() against the NumPy reference: formulas on float64, box by box."""

from __future__ import annotations

from collections.abc import Sequence
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

ALL = ("CutMix", "ResizeMix", "MixUp")
METHODS = (dcm.CutMix(), dcm.ResizeMix(), dcm.MixUp(alpha=1.0))
SIZE = (24, 40)


def random_boxes(rng: np.random.Generator, count: int, most: int = 100) -> list[Array]:
    """Boxes of each sample, none in many; on a grid, so that sides meet and halves are exact,
    anywhere, at every edge, whole, and without width, height or both."""
    found = []
    for _ in range(count):
        n = int(rng.choice([0, 1, 2, 7, rng.integers(0, most + 1)]))
        ends = rng.random((n, 2, 2))
        grid = rng.random(n) < 0.5
        ends[grid] = rng.integers(0, 9, (grid.sum(), 2, 2)) / 8
        edge = rng.random((n, 2, 2)) < 0.1
        ends = np.where(edge, np.round(ends), ends)
        flat = rng.random((n, 2)) < 0.1
        ends[:, 1] = np.where(flat, ends[:, 0], ends[:, 1])
        found.append(np.sort(ends, axis=1).reshape(n, 4).astype(np.float32))
    return found


def classes_of(rng: np.random.Generator, boxes: list[Array], dtype: Any = np.int32) -> list[Array]:
    return [rng.integers(0, 91, len(rows)).astype(dtype) for rows in boxes]


def run_boxes(
    boxes: list[Array],
    values: Sequence[list[Array]],
    draws: dict[str, Array],
    known: bool = True,
    conditionals: bool = False,
    **options: Any,
) -> list[list[Array]]:
    """Boxes, classes and more of each sample."""

    @pipeline_def(
        batch_size=len(boxes),
        num_threads=2,
        device_id=None,
        enable_conditionals=conditionals,
        prefetch_queue_depth=1,
    )
    def pipe() -> Any:
        images = fn.external_source(
            source=lambda: [np.zeros((*SIZE, 3), np.uint8)] * len(boxes), batch=True, layout="HWC"
        )
        params = graphs.plan_of_draws(images, draws, **({"size": SIZE} if known else {}))
        classes, *extra = (graphs.feed(x) for x in values)
        return dcm.mix_boxes(graphs.feed(boxes), classes, params, extra=extra, **options)

    return [[np.array(sample) for sample in output] for output in pipe().run()]


@pytest.mark.parametrize(
    "keep", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.1, 0.9), (0.25, 0.75)], ids=str
)
def test_boxes_and_classes_equal_the_reference(keep: tuple[float, float]) -> None:
    # 5 thresholds x 2,048 samples, with some 250,000 boxes of image and partner.
    for seed, known in ((1, True), (2, False)):
        count, rng = 1024, np.random.default_rng(seed)
        kinds, draws = graphs.hand_made(rng, count, SIZE, ALL)
        boxes = random_boxes(rng, count)
        classes, ids = classes_of(rng, boxes), [np.arange(2 * len(b)).reshape(-1, 2) for b in boxes]
        out = run_boxes(boxes, (classes, ids), draws, known, keep=keep)
        kept = dropped = 0
        for k, kind in enumerate(kinds):
            i, j = draws["original"][k], draws["partner"][k]
            own, other, expected = reference.shown_boxes(
                boxes[i], boxes[j], tuple(draws["box"][k].tolist()), SIZE, keep, method=kind
            )
            assert np.array_equal(out[0][k], expected), (k, kind)
            assert np.array_equal(out[1][k], [*classes[i][own], *classes[j][other]])
            assert np.array_equal(out[2][k], np.concatenate([ids[i][own], ids[j][other]]))
            assert [x[k].dtype for x in out] == [np.float32, np.int32, np.int64]
            kept += len(expected)
            dropped += len(boxes[i]) + len(boxes[j]) - len(expected)
            if kind == "none":
                assert np.array_equal(out[0][k], boxes[i])
            if kind == "MixUp":
                assert np.array_equal(out[0][k], np.concatenate([boxes[i], boxes[j]]))
        assert min(kept, dropped) > 3_000


def one(
    own: list[tuple[float, ...]],
    other: list[tuple[float, ...]],
    box: tuple[int, ...],
    **options: Any,
) -> tuple[list[tuple[float, ...]], list[int]]:
    """Boxes and classes of an image of 24 x 40 mixed with another: classes 0, 1, … and 10, 11, …"""
    boxes = [np.array(rows, np.float32).reshape(-1, 4) for rows in (own, other)]
    classes = [np.arange(len(own)), np.arange(10, 10 + len(other))]
    draws = {
        "lam": np.full(2, 1 - box[2] * box[3] / 960, np.float32),
        "box": np.array([box] * 2, np.int32),
        "partner": np.array([1, 0], np.int32),
        **options.pop("draws", {}),
    }
    found, labels = run_boxes(boxes, (classes,), draws, **options)
    return [tuple(row) for row in found[0].tolist()], labels[0].tolist()


LEFT_HALF = (0, 0, 24, 20)


def test_the_rule_by_hand() -> None:
    own = [(0.25, 0, 0.75, 1), (0.375, 0, 0.75, 1), (0.5, 0, 1, 1), (0, 0, 0.5, 1)]
    other = [(0.25, 0, 0.75, 1), (0.125, 0.5, 0.75, 1), (0.5, 0, 1, 1), (0, 0, 0.5, 1)]
    # Of the first half is covered, which is not less than half, and inside, which is not more.
    assert one(own, other, LEFT_HALF) == (
        [own[1], own[2], (0.125, 0.5, 0.5, 1), other[3]],
        [1, 2, 11, 13],
    )
    # With (1, 0) what shows at all stays, and what is inside at all comes.
    assert one(own, other, LEFT_HALF, keep=(1, 0)) == (
        [own[0], own[1], own[2], (0.25, 0, 0.5, 1), (0.125, 0.5, 0.5, 1), other[3]],
        [0, 1, 2, 10, 11, 13],
    )
    # With (0, 1) only what is not covered at all, and what is wholly inside.
    assert one(own, other, LEFT_HALF, keep=(0, 1)) == ([own[2], other[3]], [2, 13])


def test_boxes_without_area_by_hand() -> None:
    # A line at 0.25 and at the edge of what is pasted are covered, one beyond is not.
    lines = [(0.25, 0, 0.25, 1), (0.5, 0, 0.5, 1), (0.75, 0, 0.75, 1), (0, 0, 0.75, 0)]
    assert one(lines, lines, LEFT_HALF) == (
        [lines[2], lines[0], lines[1], (0, 0, 0.5, 0)],
        [2, 10, 11, 13],
    )
    corner = [(1.0, 1.0, 1.0, 1.0)]
    assert one(corner, corner, (24, 40, 0, 0)) == (corner, [0])
    assert one(corner, corner, (0, 0, 24, 40)) == (corner, [10])


def test_resizemix_by_hand() -> None:
    resized = {"resized": np.ones(2, bool)}
    boxes = [(0, 0, 1, 1), (0.5, 0.5, 0.75, 1)]
    assert one([(0.75, 0, 1, 1)], boxes, (12, 0, 12, 20), draws=resized, keep=(0.5, 1)) == (
        [(0.75, 0, 1, 1), (0, 0.5, 0.5, 1), (0.25, 0.75, 0.375, 1)],
        [0, 10, 11],
    )


def test_all_of_one_image_shows_the_boxes_of_one() -> None:
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 64)
    classes = classes_of(rng, boxes)
    for box, source in (((*SIZE, 0, 0), "original"), ((0, 0, *SIZE), "partner")):
        draws = {
            "lam": np.full(64, source == "original", np.float32),
            "box": np.array([box] * 64, np.int32),
            "partner": rng.permutation(64).astype(np.int32),
            "original": rng.permutation(64).astype(np.int32),
        }
        found, labels = run_boxes(boxes, (classes,), draws)
        for k, i in enumerate(draws[source]):
            assert np.array_equal(found[k], boxes[i])
            assert np.array_equal(labels[k], classes[i])


@pytest.mark.parametrize("methods", [METHODS[:1], METHODS], ids=["CutMix", "all"])
def test_a_batch_without_any_box(methods: Any, capfd: pytest.CaptureFixture[str]) -> None:
    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, *SIZE, 3), np.uint8), "HWC")
        params = dcm.mix(images, None, dcm.MixConfig(methods=methods)).params
        boxes, ids = np.zeros((16, 0, 4), np.float32), np.zeros((16, 0, 3), np.int64)
        classes = graphs.feed(np.zeros((16, 0, 1), np.int32))
        return dcm.mix_boxes(graphs.feed(boxes), classes, params, extra=[graphs.feed(ids)])

    boxes, classes, ids = pipe().run()
    assert boxes.shape() == [(0, 4)] * 16
    assert classes.shape() == [(0, 1)] * 16
    assert ids.shape() == [(0, 3)] * 16
    assert "arning" not in capfd.readouterr().err


def test_no_box_is_left_of_many_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    assert one([(0, 0, 0.25, 1)] * 5, [(0.75, 0, 1, 1)] * 5, LEFT_HALF) == ([], [])
    assert "arning" not in capfd.readouterr().err


def test_values_of_every_type_are_carried_along() -> None:
    rng = np.random.default_rng(1)
    kinds, draws = graphs.hand_made(rng, 64, SIZE, ALL)
    boxes = random_boxes(rng, 64, 9)
    types = get_args(MaskType)
    shapes = [(), (1,), (3,), (2, 2)]
    values = [
        [rng.integers(0, 100, (len(b), *shapes[i % 4])).astype(dtype) for b in boxes]
        for i, dtype in enumerate(types)
    ]
    out = run_boxes(boxes, values, draws)
    for k, kind in enumerate(kinds):
        i, j, box = draws["original"][k], draws["partner"][k], tuple(draws["box"][k].tolist())
        own, other, _ = reference.shown_boxes(boxes[i], boxes[j], box, SIZE, method=kind)
        for value, found in zip(values, out[1:], strict=True):
            expected = np.concatenate([value[i][own], value[j][other]])
            assert found[k].dtype == expected.dtype
            assert np.array_equal(found[k], expected)


@pytest.mark.parametrize("conditionals", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("size", [None, SIZE], ids=["unsized", "sized"])
@pytest.mark.parametrize("mode", ["elem", "batch", "pair"])
@pytest.mark.parametrize("methods", [METHODS[:1], METHODS[1:2], METHODS[2:], METHODS])
def test_boxes_follow_what_is_drawn(
    methods: Any, mode: Any, size: Any, keep_order: bool, enabled: bool, conditionals: bool
) -> None:
    rng = np.random.default_rng(3)
    boxes = random_boxes(rng, 32, 9)
    classes = classes_of(rng, boxes, np.int64)
    cfg = dcm.MixConfig(methods=methods, mode=mode, partner="flip")

    @pipeline_def(
        batch_size=32, num_threads=2, device_id=None, seed=1, enable_conditionals=conditionals
    )
    def pipe() -> Any:
        images = graphs.feed(np.zeros((32, *SIZE, 3), np.uint8), "HWC")
        switch = graphs.feed(np.full(32, enabled))
        mixed = dcm.mix(images, None, cfg, size=size, keep_order=keep_order, enabled=switch)
        params = mixed.params
        found = dcm.mix_boxes(graphs.feed(boxes), graphs.feed(classes), params)
        flags = [params.lam < 0 if f is None else f for f in (params.blended, params.resized)]
        original = params.lam * 0 - 1 if params.original is None else params.original
        return (*found, params.box, params.partner, original, *flags)

    found, labels, *rest = pipe().run()
    box, partner, original, blended, resized = (np.array(x.as_array()) for x in rest)
    for k in range(32):
        i, j = int(original[k]) if original[k] >= 0 else k, partner[k]
        kind = "MixUp" if blended[k] else "ResizeMix" if resized[k] else "CutMix"
        own, other, expected = reference.shown_boxes(
            boxes[i], boxes[j], tuple(box[k].tolist()), SIZE, method=kind
        )
        assert np.array_equal(np.array(found[k]), expected)
        assert np.array_equal(np.array(labels[k]), [*classes[i][own], *classes[j][other]])
        if not enabled:
            assert np.array_equal(np.array(found[k]), boxes[i])


def test_boxes_of_a_second_batch() -> None:
    rng = np.random.default_rng(4)
    boxes, others = random_boxes(rng, 3, 9), random_boxes(rng, 3, 9)
    classes, other_classes = classes_of(rng, boxes), classes_of(rng, others)

    @pipeline_def(batch_size=3, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((3, *SIZE, 3), np.uint8), "HWC")
        params = dcm.mix(images, None, dcm.MixConfig(), partners=(images, None)).params
        second = (graphs.feed(others), graphs.feed(other_classes))
        given = graphs.feed(boxes), graphs.feed(classes)
        return (*dcm.mix_boxes(*given, params, partners=second), params.box)

    built, taken = pipe(), 0
    for _ in range(20):
        found, labels, box = built.run()
        for k in range(3):
            own, other, expected = reference.shown_boxes(
                boxes[k], others[k], tuple(np.array(box[k]).tolist()), SIZE
            )
            assert np.array_equal(np.array(found[k]), expected)
            named = [*classes[k][own], *other_classes[k][other]]
            assert np.array_equal(np.array(labels[k]), named)
            taken += len(other)
    assert taken


# What is refused


def build(boxes: Any = None, classes: Any = None, run: bool = False, **options: Any) -> None:
    boxes = np.zeros((16, 2, 4), np.float32) if boxes is None else boxes
    classes = np.zeros((16, 2), np.int32) if classes is None else classes

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, *SIZE, 3), np.uint8), "HWC")
        params = dcm.mix(images, None, dcm.MixConfig(methods=METHODS)).params
        nodes = [x if np.isscalar(x) else graphs.feed(x) for x in (boxes, classes)]
        given = {"params": params, **options}
        if "feed" in given:
            given["extra"] = [graphs.feed(x) for x in given.pop("feed")]
        return dcm.mix_boxes(*nodes, **given)

    built = pipe()
    if run:
        built.run()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"boxes": 3}, TypeError, "`boxes` must be a DataNode of a pipeline, got int"),
        ({"classes": 3}, TypeError, "`classes` must be a DataNode of a pipeline, got int"),
        ({"extra": 3}, TypeError, "`extra` must be a tuple of nodes, got 3"),
        ({"extra": (3,)}, TypeError, "`extra` must be a DataNode of a pipeline, got int"),
        ({"keep": 0.5}, TypeError, "`keep` must be 2 numbers, got 0.5"),
        ({"keep": (0.5, 1.5)}, ValueError, r"`keep` must be two numbers in \[0, 1\]"),
        ({"keep": (-0.1, 0.5)}, ValueError, r"`keep` must be two numbers in \[0, 1\]"),
        ({"params": "x"}, TypeError, "`params` must be the params that mix"),
        ({"partners": (1, 2)}, ValueError, "`partners` must be given where mix"),
    ],
)
def test_what_is_known_at_build_is_refused_at_build(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(**options)


def with_one(row: tuple[float, ...], dtype: Any = np.float32) -> Array:
    """Good boxes of 16 samples, but for one."""
    boxes = np.tile(np.array([(0.2, 0.1, 0.4, 0.9)], dtype), (16, 2, 1))
    boxes[7, 1] = row
    return boxes


@pytest.mark.parametrize(
    "boxes",
    [
        with_one((-0.01, 0.1, 0.4, 0.9)),
        with_one((0.2, -1e-7, 0.4, 0.9)),
        with_one((0.2, 0.1, 1.01, 0.9)),
        with_one((0.2, 0.1, 0.4, 12.0)),
        with_one((0.4, 0.1, 0.2, 0.9)),
        with_one((0.2, 0.9, 0.4, 0.1)),
        with_one((np.nan, 0.1, 0.4, 0.9)),
        with_one((0.2, 0.1, 0.4, np.nan)),
        with_one((0.2, 0.1, np.inf, 0.9)),
        with_one((0.2, 0.1, 0.4, 0.9), np.float64),
        with_one((0, 0, 1, 1), np.int32),
        np.zeros((16, 2, 5), np.float32),
        np.zeros((16, 2, 1), np.float32),
        np.zeros((16, 4), np.float32),
        np.zeros((16, 2, 2, 2), np.float32),
    ],
)
def test_wrong_boxes_are_named(boxes: Array) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        build(boxes, classes=np.zeros(boxes.shape[:2], np.int32), run=True)
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`boxes` must be float32 (n, 4), left, top, right and bottom of each")


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("of", ["classes", "extra"])
def test_rows_that_are_not_those_of_the_boxes_are_named(of: str, number: int) -> None:
    rows: list[Any] = [np.zeros(2, np.int32) for _ in range(16)]
    rows[7], rows[8] = np.zeros(number, np.int32), np.zeros(4 - number, np.int32)
    given = {"classes": rows} if of == "classes" else {"feed": [rows]}
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        build(run=True, **given)
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`classes` and `extra` must have a row for each of the `boxes`")


def test_boxes_of_volumes_and_on_a_gpu_are_refused() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe(of_volumes: bool) -> Any:
        boxes, classes = fn.zeros(shape=[2, 4]), fn.zeros(shape=[2])
        if of_volumes:
            volumes = fn.zeros(shape=[4, 5, 6], dtype=graphs.types.UINT8)
            mixed = dcm.mix(volumes, None, dcm.MixConfig(), size=(4, 5, 6), layout="DHW")
            return dcm.mix_boxes(boxes, classes, mixed.params)
        images = fn.zeros(shape=[8, 8, 3])
        mixed = dcm.mix(images, None, dcm.MixConfig())
        return dcm.mix_boxes(boxes.gpu(), classes, mixed.params)

    with pytest.raises(ValueError, match="`params` must be those of images for mix_boxes"):
        pipe(True)
    with pytest.raises(ValueError, match='`boxes` must be on the CPU, got device "gpu"'):
        pipe(False)


def test_partners_must_hold_all_that_follows() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        images, boxes = fn.zeros(shape=[8, 8, 3]), fn.zeros(shape=[2, 4])
        params = dcm.mix(images, None, dcm.MixConfig(), partners=(images, None)).params
        return dcm.mix_boxes(boxes, boxes, params, extra=(boxes,), partners=(boxes, boxes))

    with pytest.raises(
        ValueError, match=r"`partners` must be \(boxes, classes, \*extra\), 3 nodes"
    ):
        pipe()
