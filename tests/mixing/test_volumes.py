"""mix() and mix_masks() of volumes against the NumPy reference, voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.mixing.methods.cutmix import exact_boxes
from tests import reference
from tests.mixing.test_masks import random_masks, same
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
LAYOUTS: dict[str, tuple[int, ...]] = {"DHW": (), "DHWC": (3,), "CDHW": (2,)}
# Odd and even, each axis the longest, a single slice, row and column.
SIZES = [(5, 7, 9), (8, 6, 4), (1, 9, 6), (7, 1, 6), (6, 8, 1), (6, 6, 6)]


def shape_of(size: tuple[int, ...], layout: str) -> tuple[int, ...]:
    channels = LAYOUTS[layout]
    return (*channels, *size) if layout == "CDHW" else (*size, *channels)


def for_device(size: tuple[int, int, int], device: str) -> tuple[int, int, int]:
    """Returns a size of which all rows have a multiple of 32 values, on a GPU.

    The kernel of fn.multi_paste there cuts rows into blocks of 32 threads, and where some have
    nothing to do they look for it beyond the end of its table (DALI 2.4.0).
    """
    return (*size[:2], 32) if device == "gpu" else size


def random_volumes(
    rng: np.random.Generator, count: int, size: tuple[int, ...], layout: str, dtype: str
) -> Array:
    return random_masks(rng, (count, *shape_of(size, layout)), dtype)


def expected(volume: Array, partner: Array, box: Any, layout: str) -> Array:
    return reference.pasted_volume(volume, partner, tuple(box), layout == "CDHW")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_volumes_equal_the_reference(
    dtype: Any, layout: Any, size: tuple[int, int, int], device: str
) -> None:
    # 3 types x 3 layouts x 6 sizes x 24 plans, half of them with indices for both volumes, and
    # masks of 8 bytes a voxel.
    rng, size = np.random.default_rng([*size]), for_device(size, device)
    volumes = random_volumes(rng, 12, size, layout, dtype)
    masks = random_volumes(rng, 12, size, layout, "int64")
    for with_original in (True, False):
        _, draws = graphs.hand_made(rng, 12, size, ("CutMix",))
        if not with_original:
            del draws["original"]

        @pipeline_def(batch_size=12, num_threads=2, device_id=0 if device == "gpu" else None)
        def pipe(draws: Any) -> Any:
            given = [graphs.feed(x) for x in (volumes, masks)]
            given = [x.gpu() for x in given] if device == "gpu" else given
            params = dcm.MixParams(**{name: graphs.feed(x) for name, x in draws.items()})
            mixed = dcm.mix(
                given[0],
                None,
                dcm.MixConfig(),
                size=size,
                layout=layout,
                dtype=dtype,
                params=params,
            )
            return mixed.images, dcm.mix_masks(given[1], mixed.params, dtype="int64", layout=layout)

        ((out, out_masks),) = graphs.run(pipe(draws))
        for k in range(12):
            i, j = draws["original"][k] if with_original else k, draws["partner"][k]
            box = draws["box"][k].tolist()
            assert same(out[k], expected(volumes[i], volumes[j], box, layout)), box
            assert same(out_masks[k], expected(masks[i], masks[j], box, layout)), box


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_and_lam_of_volumes_equal_the_reference(size: tuple[int, int, int]) -> None:
    # 6 sizes x 400 boxes around injected centres; lam is the counted share, and in the label.
    count, rng = 400, np.random.default_rng(list(size))
    special = [0.0, 1.0, 1e-9, 1 - 1e-9, 0.5, *rng.random(40)]
    draws = {
        "lam": rng.choice(special, count),
        "position": rng.choice([0.0, 1 - 1e-12, *rng.random(20)], (count, 3)),
        "partner": rng.integers(0, count, count, dtype=np.int32),
    }
    cfg = dcm.MixConfig(num_classes=count)
    volumes, labels = np.zeros((count, *size), np.uint8), np.arange(count, dtype=np.int32)[:, None]

    @pipeline_def(batch_size=count, num_threads=2, device_id=None)
    def pipe() -> Any:
        params = graphs.injected(cfg, draws, size)
        given = graphs.feed(volumes), graphs.feed(labels)
        mixed = dcm.mix(*given, cfg, size=size, layout="DHW", params=params)
        return mixed.params.box, mixed.params.lam, mixed.targets

    ((box, lam, target),) = graphs.run(pipe())
    sizes = np.array(size)
    for k, j in enumerate(draws["partner"]):
        centre = tuple(np.floor(draws["position"][k] * sizes).astype(int).tolist())
        wanted = reference.volume_box(draws["lam"][k], centre, size)
        assert tuple(box[k]) == wanted
        share = 1 - np.prod(wanted[3:], dtype=float) / sizes.prod()
        assert lam[k] == np.float32(share)
        row = reference.mixed_row(np.eye(count)[k], np.eye(count)[j], share)
        assert np.abs(target[k] - row).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("options", [{}, {"box": "inside"}, {"cutmix_alpha": 0.4}], ids=str)
def test_what_is_drawn_is_pasted(
    options: dict[str, Any], keep_order: bool, layout: Any, device: str
) -> None:
    # With rectangles by the hundred: two channels of 70 rows.
    size, rng = for_device((6, 70, 5), device), np.random.default_rng(1)
    volumes = random_volumes(rng, 16, size, layout, "float32")
    masks = random_volumes(rng, 16, size, layout, "bool")
    cfg = dcm.MixConfig(num_classes=16, prob=0.9, **options)

    @pipeline_def(batch_size=16, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        given = [graphs.feed(x) for x in (volumes, masks)]
        given = [x.gpu() for x in given] if device == "gpu" else given
        mixed = dcm.mix(
            given[0],
            graphs.feed(np.arange(16)),
            cfg,
            size=size,
            layout=layout,
            dtype="float32",
            keep_order=keep_order,
        )
        params = mixed.params
        followed = dcm.mix_masks(given[1], params, dtype="bool", layout=layout)
        original = params.lam * 0 - 1 if params.original is None else params.original
        return mixed.images, followed, params.box, params.partner, original, params.lam

    pasted = 0
    for out, out_masks, box, partner, original, lam in graphs.run(pipe(), 2):
        assert (original[0] == -1) == keep_order
        for k, j in enumerate(partner):
            i = int(original[k]) if original[k] >= 0 else k
            assert same(out[k], expected(volumes[i], volumes[j], box[k], layout))
            assert same(out_masks[k], expected(masks[i], masks[j], box[k], layout))
            assert lam[k] == np.float32(1 - box[k][3:].astype(float).prod() / np.prod(size))
            pasted += int(box[k][3:].all())
    assert pasted > 16


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 3])
def test_partners_of_a_second_batch(count: int, layout: Any, device: str) -> None:
    size, rng = for_device((6, 7, 5), device), np.random.default_rng(1)
    volumes, others, masks, other_masks = (
        random_volumes(rng, count, size, layout, dtype)
        for dtype in ("int16", "int16", "uint16", "uint16")
    )

    @pipeline_def(batch_size=count, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        given = [graphs.feed(x) for x in (volumes, others, masks, other_masks)]
        a, b, c, d = [x.gpu() for x in given] if device == "gpu" else given
        mixed = dcm.mix(
            a, None, dcm.MixConfig(), size=size, layout=layout, dtype="int16", partners=(b, None)
        )
        followed = dcm.mix_masks(c, mixed.params, dtype="uint16", layout=layout, partners=d)
        return mixed.images, followed, mixed.params.box

    pasted = 0
    for out, out_masks, box in graphs.run(pipe(), 8):
        for k in range(count):
            assert same(out[k], expected(volumes[k], others[k], box[k], layout))
            assert same(out_masks[k], expected(masks[k], other_masks[k], box[k], layout))
            pasted += int(box[k][3:].all())
    assert pasted


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cutmix_alpha", [0.0, 1.0])
def test_mixup_of_volumes(cutmix_alpha: float, layout: Any, dtype: Any, device: str) -> None:
    size, rng = for_device((6, 7, 5), device), np.random.default_rng(1)
    shape = (16, *shape_of(size, layout))
    volumes = rng.integers(0, 256, shape, dtype=np.uint8).astype(dtype)
    masks = random_volumes(rng, 16, size, layout, "uint8")
    cfg = dcm.MixConfig(cutmix_alpha=cutmix_alpha, mixup_alpha=1.0, switch_prob=0.5)

    @pipeline_def(batch_size=16, num_threads=2, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        given = [graphs.feed(x) for x in (volumes, masks)]
        given = [x.gpu() for x in given] if device == "gpu" else given
        mixed = dcm.mix(given[0], None, cfg, size=size, layout=layout, dtype=dtype)
        params = mixed.params
        followed = dcm.mix_masks(given[1], params, layout=layout, blend="heavier")
        return mixed.images, followed, params.box, params.partner, params.lam, params.blended

    kinds = set()
    for out, out_masks, box, partner, lam, blended in graphs.run(pipe(), 2):
        for k, j in enumerate(partner):
            kinds.add(bool(blended[k]))
            if not blended[k]:
                assert same(out[k], expected(volumes[k], volumes[j], box[k], layout))
                assert same(out_masks[k], expected(masks[k], masks[j], box[k], layout))
                continue
            assert same(out_masks[k], masks[k] if lam[k] >= 0.5 else masks[j])
            if dtype == "uint8":
                graphs.assert_blended(out[k], volumes[k], volumes[j], lam[k])
            else:
                wanted = reference.weighted_sum(volumes[k], volumes[j], lam[k])
                assert np.abs(out[k] - wanted).max() < 1e-4
    assert kinds == ({True, False} if cutmix_alpha else {True})


def test_volumes_are_mixed_alike_with_conditionals_and_by_layout() -> None:
    # The same draws whatever the layout; and DALI's AutoGraph changes nothing.
    size, rng = (6, 7, 5), np.random.default_rng(1)
    volumes = random_volumes(rng, 16, size, "DHW", "int16")
    runs = []
    for layout, conditionals in (("DHW", False), ("DHW", True), ("DHWC", False), ("CDHW", True)):
        axis = {"DHWC": 4, "CDHW": 1}.get(layout)
        given = volumes if axis is None else np.expand_dims(volumes, axis)

        @pipeline_def(
            batch_size=16, num_threads=2, device_id=None, seed=1, enable_conditionals=conditionals
        )
        def pipe(given: Array, layout: Any) -> Any:
            mixed = dcm.mix(
                graphs.feed(given), None, dcm.MixConfig(), size=size, layout=layout, dtype="int16"
            )
            if layout == "DHW":
                return mixed.images
            return mixed.images, fn.crop(mixed.images, crop=(2, 3, 3))  # which needs the layout

        ((out, *cropped),) = graphs.run(pipe(given, layout))
        assert all(part.size == 16 * 18 for part in cropped)
        runs.append(out.reshape(volumes.shape))
    assert all(np.array_equal(run, runs[0]) for run in runs)
    assert not np.array_equal(runs[0], volumes)


@pytest.mark.parametrize("size", [(8, 8, 8), (6, 10, 9), (6, 700, 4)], ids=str)
def test_boxes_of_volumes_have_their_distribution(size: tuple[int, int, int]) -> None:
    # Of 24,000 boxes the sides against the probabilities of the classes that they come in, also
    # where they are computed: 5 standard deviations.
    @pipeline_def(batch_size=2000, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        volumes = fn.zeros(shape=list(size), dtype=graphs.types.UINT8)
        params = dcm.mix(volumes, None, dcm.MixConfig(), size=size, layout="DHW").params
        return params.box, params.lam

    batches = graphs.run(pipe(), 12)
    box = np.concatenate([batch[0] for batch in batches])
    assert len(np.unique(box, axis=0)) > 300
    probabilities, axes = exact_boxes(size)
    whole = np.ones(len(probabilities))
    empty = np.array([axes[0][c, 0, 3] == 0 for c in range(len(probabilities))])
    assert abs((box[:, 3] == 0).mean() - probabilities[empty].sum()) < 0.02
    for axis, (table, length) in enumerate(zip(axes, size, strict=True)):
        # The chance of each (start, side), over classes and centres.
        chances = np.zeros((length + 1, length + 1))
        for share, row in zip(probabilities, table, strict=True):
            np.add.at(chances, (row[:, 1], row[:, 3]), share / length)
        assert abs(chances.sum() - whole.sum() / len(whole)) < 1e-12
        found = np.zeros_like(chances)
        np.add.at(found, (box[:, axis], box[:, 3 + axis]), 1 / len(box))
        tolerance = 5 * np.sqrt(chances * (1 - chances) / len(box)) + 1e-12
        often = chances > 1e-3
        assert (np.abs(found - chances)[often] < tolerance[often]).all()
        assert found[chances == 0].sum() == 0


# What is refused


def build(volumes: Any = None, run: bool = False, **options: Any) -> None:
    volumes = np.zeros((16, 4, 5, 6), np.uint8) if volumes is None else volumes
    given = {"size": (4, 5, 6), "layout": "DHW", "cfg": dcm.MixConfig(num_classes=4), **options}
    of_masks, labels = given.pop("masks", None), given.pop("labels", None)

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        numbers = None if labels is None else graphs.feed(labels)
        node = graphs.feed(volumes)
        mixed = dcm.mix(node, numbers, **given)
        if of_masks is not None:
            return mixed.images, dcm.mix_masks(node, mixed.params, **of_masks)
        return mixed.images

    built = pipe()
    if run:
        built.run()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "DWH"}, ValueError, '`layout` must be one of "HWC", "DHW", "DHWC", "CDHW"'),
        ({"layout": None}, ValueError, "`layout` must be one of"),
        ({"layout": "HWC"}, TypeError, r"`size` must be \(height, width\)"),
        ({"size": None}, ValueError, r"`size` must be \(depth, height, width\) with `layout="),
        ({"size": (5, 6)}, TypeError, r"`size` must be \(depth, height, width\), got \(5, 6\)"),
        ({"size": (0, 5, 6)}, ValueError, "`size` must be at least 1, got 0"),
        ({"dtype": "int32"}, ValueError, '`dtype` must be one of "uint8", "int16", "float32"'),
        (
            {"cfg": dcm.MixConfig(methods=(dcm.CutMix(), dcm.ResizeMix()))},
            ValueError,
            "`methods` must be CutMix, ObjectCutMix or MixUp for volumes, got ResizeMix",
        ),
        (
            {"cfg": dcm.MixConfig(mixup_alpha=0.2), "dtype": "int16"},
            ValueError,
            r'`dtype` must be "uint8" or "float32" to blend volumes',
        ),
        ({"masks": {}}, ValueError, '`layout` must be one of "DHW", "DHWC", "CDHW", got None'),
        ({"masks": {"layout": "HW"}}, ValueError, "`layout` must be one of"),
    ],
)
def test_what_is_known_at_build_is_refused_at_build(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(**options)


def test_int16_images_are_refused() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images: Any = fn.zeros(shape=[8, 8, 3])
        return dcm.mix(images, None, dcm.MixConfig(), dtype="int16").images

    with pytest.raises(ValueError, match='`dtype` must be one of "uint8", "float32"'):
        pipe()


@pytest.mark.parametrize("labels", [None, np.zeros(16, np.int32)], ids=["no labels", "labels"])
@pytest.mark.parametrize(
    ("volumes", "options"),
    [
        (np.zeros((16, 4, 5, 7), np.uint8), {}),
        (np.zeros((16, 6, 5, 4), np.uint8), {}),
        (np.zeros((16, 4, 5, 6), np.float32), {}),
        (np.zeros((16, 4, 5, 6), np.uint8), {"dtype": "float32"}),
        (np.zeros((16, 4, 5, 6, 1), np.uint8), {}),
        (np.zeros((16, 2, 4, 5, 6), np.uint8), {"layout": "DHWC"}),
        (np.zeros((16, 4, 5, 6, 2), np.uint8), {"layout": "CDHW"}),
        (np.zeros((16, 4, 5, 6), np.uint8), {"layout": "CDHW"}),
        (np.zeros((16, 17, 4, 5, 6), np.uint8), {"layout": "CDHW"}),
        (np.zeros((16, 4, 30), np.uint8), {}),
    ],
)
def test_wrong_volumes_are_named(volumes: Array, options: dict[str, Any], labels: Any) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        build(volumes, run=True, labels=labels, **options)
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`images` must be volumes of `dtype` and of the `size` and `layout`")


@pytest.mark.parametrize(
    ("dtype", "layout"), [("int8", "DHW"), ("uint8", "DHWC"), ("uint8", "CDHW"), ("int16", "DHW")]
)
def test_wrong_masks_of_volumes_are_named(dtype: str, layout: str) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        build(run=True, masks={"dtype": dtype, "layout": layout})
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`masks` must be of `dtype`")


def test_params_that_volumes_cannot_follow_are_refused() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe(flag: str) -> Any:
        volumes: Any = fn.zeros(shape=[4, 5, 6])
        fields = {
            "lam": np.ones(16, np.float32),
            "box": np.tile(np.array([4, 5, 6, 0, 0, 0], np.int32), (16, 1)),
            "partner": np.zeros(16, np.int32),
            flag: np.zeros(16, bool),
        }
        params = dcm.MixParams(**{name: graphs.feed(x) for name, x in fields.items()})
        options: dict[str, Any] = {"size": (4, 5, 6), "layout": "DHW", "dtype": "int16"}
        return dcm.mix(volumes, None, dcm.MixConfig(), params=params, **options).images

    with pytest.raises(ValueError, match="`params` must be of CutMix or MixUp for volumes"):
        pipe("resized")
    with pytest.raises(ValueError, match='`dtype` must be "uint8" or "float32" where `params` may'):
        pipe("blended")
