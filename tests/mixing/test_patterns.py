"""GridMix, FMix, SmoothMix and Cutout: what they draw, and images, masks and boxes that follow."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def
from nvidia.dali.pipeline import do_not_convert

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.mixing.methods.fmix import field_ranks
from tests import reference
from tests.mixing.test_boxes import random_boxes
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZES = [(7, 11), (33, 20), (8, 8), (12, 40), (3, 100)]
COUNT = 1024  # 5 sizes: 5,120 samples
GRID, FIELDS = dcm.GridMix(holes=(2, 4)), dcm.FMix(fields=5)
SMOOTH, CUT = dcm.SmoothMix(), dcm.Cutout(length=6, fill=7)
EACH = [GRID, FIELDS, SMOOTH, CUT]
IDS = ["GridMix", "FMix", "SmoothMix", "Cutout"]
OTHERS = (dcm.CutMix(), dcm.MixUp(alpha=0.5), dcm.ResizeMix())


# One method by itself, of given draws


def given_draws(rng: np.random.Generator, count: int) -> dict[str, Array]:
    ends = [0.0, 1 - 1e-12, *rng.random(60)]
    return {
        "lam": rng.choice(ends, count),
        "holes": rng.choice(ends, count),
        "place": rng.choice(ends, (count, 3)),
        "up": rng.random(count) < 0.5,
        "position": rng.choice(ends, (count, 2)),
        "scale": rng.choice(ends, count),
        "partner": rng.integers(0, count, count, dtype=np.int32),
    }


def run_given(method: Any, images: Array, draws: dict[str, Array], device: str) -> list[Array]:
    """Images, lam and targets; the label of a sample is its own."""
    count = len(images)
    cfg = dcm.MixConfig(num_classes=count, methods=(method,))
    labels = np.arange(count, dtype=np.int32)[:, None]
    pipe = graphs.mix_pipeline(images, labels, cfg, draws=draws, device=device, known=True)
    ((out, lam, box, _, target),) = graphs.run(pipe)
    assert (box == [*images.shape[1:3], 0, 0]).all()
    return [out, lam, target]


def assert_targets(target: Array, lam: Array, partner: Array) -> None:
    rows = np.arange(len(lam))
    expected = np.zeros(target.shape)
    expected[rows, rows] += lam
    expected[rows, partner] += 1.0 - lam
    assert np.abs(target - expected).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scope", [(0.1, 0.9), (0.0, 1.0)], ids=str)
def test_gridmix_equals_the_reference(
    scope: tuple[float, float], size: tuple[int, int], device: str
) -> None:
    rng, count = np.random.default_rng(list(size)), COUNT // 2
    images, draws = graphs.distinct_images(rng, count, size), given_draws(rng, count)
    method = dcm.GridMix(holes=(2, 4), lam=scope)
    out, lam, target = run_given(method, images, draws, device)
    sides = set()
    for i, j in enumerate(draws["partner"]):
        holes = 2 + int(draws["holes"][i] * 3)
        drawn = draws["lam"][i] * np.float32(scope[1] - scope[0]) + np.float32(scope[0])
        mask = reference.gridmix_holes(drawn, holes, size)
        assert np.array_equal(out[i], np.where(mask[..., None], images[j], images[i]))
        assert lam[i] == np.float32(1 - mask.mean())
        sides.add((holes, int(mask[0].sum())))
    assert len(sides) > 3
    assert_targets(target, lam, draws["partner"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [*SIZES, (257, 263)], ids=str)  # the last has int32 ranks
def test_fmix_equals_the_reference(size: tuple[int, int], device: str) -> None:
    rng, count = np.random.default_rng(list(size)), COUNT if max(size) < 200 else 6
    images, draws = graphs.distinct_images(rng, count, size), given_draws(rng, count)
    out, lam, target = run_given(FIELDS, images, draws, device)
    ranks, area = field_ranks(size, 3.0, 5, 0), size[0] * size[1]
    for i, j in enumerate(draws["partner"]):
        field, y, x = (draws["place"][i] * (5, *size)).astype(int)
        exact = draws["lam"][i] * area
        shown = int(np.ceil(exact) if draws["up"][i] else np.floor(exact))
        mask = np.roll(ranks[field], (-y, -x), (0, 1)) < shown
        assert mask.sum() == shown  # of the top lam * H * W, no more and no less
        assert np.array_equal(out[i], np.where(mask[..., None], images[i], images[j]))
        assert lam[i] == np.float32(shown / area)
        assert abs(lam[i] - draws["lam"][i]) <= 1 / area + 1e-6
    assert_targets(target, lam, draws["partner"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_smoothmix_equals_the_reference(size: tuple[int, int], device: str) -> None:
    """Its lam is the image's share; openmixup's is the partner's, 1 - this."""
    rng = np.random.default_rng(list(size))
    images, draws = graphs.distinct_images(rng, COUNT, size), given_draws(rng, COUNT)
    out, lam, target = run_given(SMOOTH, images, draws, device)
    for i, j in enumerate(draws["partner"]):
        y, x = (draws["position"][i] * size).astype(int).tolist()
        sigma = (0.25 + draws["scale"][i] * 0.25) * size[0]
        weights = reference.smoothmix_weights((y, x), sigma, size)
        exact = reference.averaged(images[i], images[j], weights)
        # Halves, which nothing but a weight of 0.5 gives, may fall on either side.
        assert np.abs(out[i] - exact).max() < 0.5 + 1e-4
        assert abs(lam[i] - (1 - weights.mean())) < 1e-5
        assert np.array_equal(out[i, y, x], images[j, y, x])  # the partner's, at the centre
    assert_targets(target, lam, draws["partner"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("length", [5, 6, 300])
def test_cutout_equals_the_reference(length: int, size: tuple[int, int], device: str) -> None:
    rng, count = np.random.default_rng(list(size)), COUNT // 2
    images, draws = graphs.distinct_images(rng, count, size), given_draws(rng, count)
    method = dcm.Cutout(length=length, fill=(1, 2, 3))
    out, lam, target = run_given(method, images, draws, device)
    for i in range(count):
        y, x = (draws["position"][i] * size).astype(int).tolist()
        y, x, h, w = reference.cutout_box((y, x), length, size)
        expected = images[i].copy()
        expected[y : y + h, x : x + w] = (1, 2, 3)
        assert np.array_equal(out[i], expected)
    assert (lam == 1).all()
    assert np.array_equal(target, np.eye(count, dtype=np.float32))  # its own label, whole


@pytest.mark.parametrize("device", DEVICES)
def test_cutout_rounds_its_fill_alike_on_both_devices(device: str) -> None:
    method = dcm.Cutout(length=4, fill=(0.5, 1.5, 254.7))
    images = np.full((8, 9, 10, 3), 100, np.uint8)
    for batch in run_drawn(images, dcm.MixConfig(num_classes=8, methods=(method,)), device=device):
        found = batch["images"].reshape(-1, 3)
        assert np.array_equal(np.unique(found, axis=0), [[0, 2, 255], [100, 100, 100]])


# All of them in all ways of mix()


def run_drawn(
    images: Array,
    cfg: dcm.MixConfig,
    *,
    device: str = "cpu",
    known: bool = True,
    dtype: Any = "uint8",
    masks: Array | None = None,
    conditionals: bool = False,
    iterations: int = 2,
    **options: Any,
) -> list[dict[str, Array]]:
    """What is drawn and shown in each iteration, and the masks that follow."""
    count, size = len(images), images.shape[1:3]
    names = ["images", "targets", "lam", "box", "partner"]

    @pipeline_def(
        batch_size=count,
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        seed=3,
        enable_conditionals=conditionals,
    )
    def pipe() -> Any:
        return outputs()

    @do_not_convert
    def outputs() -> Any:
        pixels = graphs.feed(images, "HWC")
        pixels = pixels.gpu() if device == "gpu" else pixels
        given = dict(options)
        if "enabled" in given:
            given["enabled"] = graphs.feed(np.full(count, given["enabled"]))
        mixed = dcm.mix(
            pixels,
            graphs.feed(np.arange(count)[:, None].astype(np.int32)),
            cfg,
            size=size if known else None,
            dtype=dtype,
            **given,
        )
        params = mixed.params
        found = [mixed.images, mixed.targets, params.lam, params.box, params.partner]
        for name, node in (
            ("original", params.original),
            ("blended", params.blended),
            ("resized", params.resized),
            ("masks", None if masks is None else follow(mixed.params)),
        ):
            if node is not None:
                names.append(name)
                found.append(node)
        for k, pattern in enumerate(params.patterns):
            names.extend([f"chosen/{k}", f"numbers/{k}"])
            found += [pattern.chosen, pattern.numbers]
        return tuple(found)

    def follow(params: Any) -> Any:
        assert masks is not None
        seen = graphs.feed(masks)
        seen = seen.gpu() if device == "gpu" else seen
        return dcm.mix_masks(seen, params, dtype=str(masks.dtype), blend="heavier")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        built = pipe()
    batches = [dict(zip(names, batch, strict=False)) for batch in graphs.run(built, iterations)]
    return batches


def shown_by(method: Any, numbers: Array, size: tuple[int, int]) -> Array:
    """The image's weight of each pixel, by the numbers that the method drew."""
    if isinstance(method, dcm.GridMix):
        mask = np.zeros(size, bool)
        for top, left, h, w in numbers.reshape(-1, 4):
            mask[top : top + h, left : left + w] = True
        low, high = method.holes if isinstance(method.holes, tuple) else (method.holes,) * 2
        assert any(
            np.array_equal(mask, ~reference.gridmix_holes(lam, holes, size))
            for holes in range(low, high + 1)
            for lam in np.linspace(*method.lam, 200)
        )
        return mask
    if isinstance(method, dcm.FMix):
        field, down, across, shown = numbers
        ranks = field_ranks(size, method.decay, method.fields, method.seed)
        found: Array = np.roll(ranks[field], (-down, -across), (0, 1)) < shown
        return found
    sigma = numbers[2:].view(np.float32)[0]
    return 1 - reference.smoothmix_weights((numbers[0], numbers[1]), sigma, size)


def check_batch(
    batch: dict[str, Array], images: Array, methods: tuple[Any, ...], masks: Array | None = None
) -> list[str]:
    """Checks images, lam, targets and masks of every sample; returns what it was mixed by."""
    count, size, kinds = len(images), images.shape[1:3], []
    originals = batch.get("original", np.arange(count))
    patterned = [method for method in methods if method.shows is not None]
    for i, (a, b) in enumerate(zip(originals, batch["partner"], strict=True)):
        image, partner, out, lam = images[a], images[b], batch["images"][i], batch["lam"][i]
        box = tuple(batch["box"][i].tolist())
        own = np.ones(size, bool)  # the mask's, where the image's shows
        chosen = [k for k in range(len(patterned)) if batch[f"chosen/{k}"][i]]
        assert len(chosen) <= 1
        if chosen:
            method, numbers = patterned[chosen[0]], batch[f"numbers/{chosen[0]}"][i]
            kinds.append(type(method).__name__)
            assert box == (*size, 0, 0)
            if isinstance(method, dcm.Cutout):
                y, x, h, w = numbers
                expected = image.copy()
                expected[y : y + h, x : x + w] = method.fill
                assert np.array_equal(out, expected)
                assert lam == 1
            else:
                weights = shown_by(method, numbers, size)
                exact = reference.averaged(partner, image, weights.astype(np.float64))
                assert np.abs(out - exact).max() < (0.5 + 1e-4 if out.dtype == np.uint8 else 1e-3)
                if weights.dtype == bool:
                    assert np.array_equal(out, exact.astype(out.dtype))
                    assert lam == np.float32(weights.mean())
                assert abs(lam - weights.mean()) < 1e-5
                own = weights >= 0.5
        elif "blended" in batch and batch["blended"][i]:
            kinds.append("MixUp")
            graphs.assert_blended(out, image, partner, lam)
            own[:] = lam >= 0.5
        elif "resized" in batch and batch["resized"][i]:
            kinds.append("ResizeMix")
            assert np.array_equal(out, reference.resized_into(image, partner, box))
            own = None
        else:
            kinds.append("CutMix" if box[2] * box[3] else "none")
            assert np.array_equal(out, reference.pasted(image, partner, box))
            own[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = False
        row = reference.mixed_row(np.eye(count)[a], np.eye(count)[b], lam)
        assert np.abs(batch["targets"][i] - row).max() < 1e-6
        if masks is not None:
            if own is None:
                expected = reference.resized_into(masks[a], masks[b], box)
            else:
                where = own if masks.ndim == 3 else own[..., None]
                expected = np.where(where, masks[a], masks[b])
            assert np.array_equal(batch["masks"][i], expected)
    return kinds


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("mode", ["elem", "batch", "pair"])
@pytest.mark.parametrize("method", EACH, ids=IDS)
def test_a_pattern_alone(
    method: Any, mode: Any, known: bool, keep_order: bool, device: str
) -> None:
    if not known and isinstance(method, dcm.FMix):
        pytest.skip("refused, see below")
    images = graphs.distinct_images(np.random.default_rng(1), 32, (24, 31))
    cfg = dcm.MixConfig(num_classes=32, methods=(method,), mode=mode, partner="flip", prob=0.8)
    options = {"device": device, "known": known, "keep_order": keep_order}
    for batch in run_drawn(images, cfg, **options):
        kinds = check_batch(batch, images, (method,))
        if mode == "pair":
            assert kinds == kinds[::-1]
        if mode == "batch":
            assert len(set(kinds)) == 1
            assert len(np.unique(batch["numbers/0"], axis=0)) == 1
        else:
            assert len(np.unique(batch["numbers/0"], axis=0)) > 4
        moved = isinstance(method, dcm.GridMix) and not keep_order
        assert ("original" in batch) == moved


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize(
    "beside", [OTHERS, OTHERS[:1], OTHERS[1:2], OTHERS[2:], ()], ids=["all", *"CMR", "none"]
)
def test_patterns_beside_other_methods(
    beside: tuple[Any, ...], keep_order: bool, device: str
) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 48, (24, 31))
    masks = np.arange(48 * 24 * 31).reshape(48, 24, 31).astype(np.uint8)
    methods = (*EACH, *beside)
    cfg = dcm.MixConfig(num_classes=48, methods=methods, prob=0.9)
    options = {"device": device, "keep_order": keep_order, "masks": masks}
    found: list[str] = []
    for batch in run_drawn(images, cfg, iterations=3, **options):
        found += check_batch(batch, images, methods, masks)
    assert {*IDS, *(type(method).__name__ for method in beside)} <= set(found)
    # 144 samples; each of the methods has its share of 0.9, within five standard deviations.
    share = 0.9 / len(methods)
    for name in IDS:
        assert abs(found.count(name) / 144 - share) < 5 * np.sqrt(share * (1 - share) / 144)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(24, 31), (24, 32), (7, 9)], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 16])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_of_any_channels_and_type(
    dtype: str, channels: int, size: tuple[int, int], device: str
) -> None:
    rng = np.random.default_rng(channels)
    images = rng.integers(0, 256, (16, *size, channels)).astype(dtype)
    cfg = dcm.MixConfig(num_classes=16, methods=tuple(EACH))
    for batch in run_drawn(images, cfg, device=device, dtype=dtype):
        assert set(check_batch(batch, images, tuple(EACH))) == set(IDS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "bool", "uint16", "float16", "int32", "float64"])
@pytest.mark.parametrize("methods", [EACH, EACH[:1]], ids=["each", "GridMix"])
def test_masks_are_copied_whatever_their_type(
    methods: list[Any], dtype: str, keep_order: bool, device: str
) -> None:
    rng, size = np.random.default_rng(0), (12, 17)
    images = graphs.distinct_images(rng, 24, size)
    for shape in ((24, *size), (24, *size, 3)):
        masks = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
        cfg = dcm.MixConfig(num_classes=24, methods=tuple(methods))
        options = {"device": device, "keep_order": keep_order, "masks": masks}
        for batch in run_drawn(images, cfg, **options):
            assert batch["masks"].dtype == masks.dtype
            check_batch(batch, images, tuple(methods), masks)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["HW", "HWC"])
@pytest.mark.parametrize("method", [GRID, SMOOTH, CUT], ids=["GridMix", "SmoothMix", "Cutout"])
def test_masks_follow_also_where_mix_is_not_told_the_size(
    method: Any, channels: tuple[int, ...], device: str
) -> None:
    rng, size = np.random.default_rng(0), (12, 17)
    images = graphs.distinct_images(rng, 16, size)
    masks = rng.integers(0, 256, (16, *size, *channels), dtype=np.uint8)
    cfg = dcm.MixConfig(num_classes=16, methods=(method,))
    for batch in run_drawn(images, cfg, device=device, masks=masks, known=False):
        check_batch(batch, images, (method,), masks)


@pytest.mark.parametrize("enabled", [True, False])
def test_patterns_are_switched(enabled: bool) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, (12, 17))
    cfg = dcm.MixConfig(num_classes=16, methods=tuple(EACH))
    for batch in run_drawn(images, cfg, enabled=enabled):
        kinds = check_batch(batch, images, tuple(EACH))
        assert ("none" in kinds) == (not enabled)
        assert enabled or np.array_equal(batch["images"], images)


def test_graphs_that_autograph_converts_are_the_same() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, (12, 17))
    cfg = dcm.MixConfig(num_classes=16, methods=(*EACH, *OTHERS))
    plain, converted = (run_drawn(images, cfg, conditionals=flag) for flag in (False, True))
    for a, b in zip(plain, converted, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


class Crossed(dcm.GridMix):
    """The partner in the bars of GridMix's grid: boxes of the partner, as cells would be."""

    shows = "boxes"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
def test_boxes_of_the_partner(keep_order: bool, device: str) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (24, 31))
    masks, count = images[..., 0], 0
    cfg = dcm.MixConfig(num_classes=32, methods=(Crossed(holes=3), GRID, dcm.CutMix()))
    options = {"device": device, "keep_order": keep_order, "masks": masks}
    for batch in run_drawn(images, cfg, **options):
        originals = batch.get("original", np.arange(32))
        assert ("original" in batch) == (not keep_order)
        for i in range(32):
            image, partner = images[originals[i]], images[batch["partner"][i]]
            expected = reference.pasted(image, partner, tuple(batch["box"][i].tolist()))
            if batch["chosen/0"][i]:
                own = ~shown_by(GRID, batch["numbers/0"][i], (24, 31))
                expected = np.where(own[..., None], image, partner)
                count += 1
            elif batch["chosen/1"][i]:
                own = shown_by(GRID, batch["numbers/1"][i], (24, 31))
                expected = np.where(own[..., None], image, partner)
            assert np.array_equal(batch["images"][i], expected)
            assert np.array_equal(batch["masks"][i], expected[..., 0])
    assert 5 < count < 40


def test_patterns_beside_detection_cutmix() -> None:
    rng, count, size = np.random.default_rng(1), 48, (24, 31)
    images, objects = graphs.distinct_images(rng, count, size), random_boxes(rng, count, 3)
    cfg = dcm.MixConfig(methods=(dcm.DetectionCutMix(), FIELDS))

    @pipeline_def(batch_size=count, num_threads=1, device_id=None, seed=2)
    def pipe() -> Any:
        nodes = graphs.feed(images, "HWC"), graphs.feed(objects)
        mixed = dcm.mix(nodes[0], None, cfg, size=size, objects=nodes[1])
        params, (pattern,) = mixed.params, mixed.params.patterns
        return mixed.images, params.partner, params.box, pattern.chosen, pattern.numbers

    for out, partner, box, chosen, numbers in graphs.run(pipe(), 2):
        assert 10 < chosen.sum() < 38
        for i in range(count):
            expected = reference.pasted(images[i], images[partner[i]], tuple(box[i].tolist()))
            if chosen[i]:
                own = shown_by(FIELDS, numbers[i], size)
                expected = np.where(own[..., None], images[i], images[partner[i]])
            assert np.array_equal(out[i], expected)


def test_two_of_a_kind_draw_apart() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (12, 17))
    methods = (dcm.FMix(fields=5), dcm.FMix(fields=5))
    cfg = dcm.MixConfig(num_classes=32, methods=methods)
    for batch in run_drawn(images, cfg):
        check_batch(batch, images, methods)
        assert not np.array_equal(batch["numbers/0"], batch["numbers/1"])


# Labels


@pytest.mark.parametrize("method", EACH, ids=IDS)
def test_pair_targets_and_rows_of_floats(method: Any) -> None:
    rng, count = np.random.default_rng(1), 16
    images = graphs.distinct_images(rng, count, (12, 17))
    pair = dcm.MixConfig(num_classes=count, methods=(method,), targets="pair")
    labels = np.arange(count, dtype=np.int32)[:, None]
    pipe = graphs.mix_pipeline(images, labels, pair, known=True)
    ((_, lam, _, partner, label_a, label_b, share),) = graphs.run(pipe)
    assert np.array_equal(label_a, np.arange(count))
    assert np.array_equal(label_b, partner)
    assert np.array_equal(share, lam)
    rows = rng.random((count, 5)).astype(np.float32)
    soft = dcm.MixConfig(num_classes=5, methods=(method,), labels="float")
    pipe = graphs.mix_pipeline(images, rows, soft, known=True)
    ((_, lam, _, partner, target),) = graphs.run(pipe)
    expected = lam[:, None] * rows + (1 - lam[:, None]) * rows[partner]
    assert np.abs(target - expected).max() < 1e-6
    assert (lam < 1).all() != isinstance(method, dcm.Cutout)


# A second batch, the same again, and what is refused


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 7])
def test_partners_of_a_second_batch(count: int, device: str) -> None:
    rng, size = np.random.default_rng(1), (12, 17)
    images = graphs.distinct_images(rng, count, size)
    others, masks = 255 - images, rng.integers(0, 9, (2, count, *size), dtype=np.uint8)
    cfg = dcm.MixConfig(num_classes=14, methods=tuple(EACH))
    labels = np.arange(count, dtype=np.int32)[:, None]

    @pipeline_def(batch_size=count, num_threads=1, device_id=0 if device == "gpu" else None, seed=2)
    def pipe() -> Any:
        def fed(x: Array, layout: str | None = None) -> Any:
            node = graphs.feed(x, layout)
            return node.gpu() if device == "gpu" else node

        partners = fed(others, "HWC"), graphs.feed(labels + 7)
        own = fed(images, "HWC"), graphs.feed(labels)
        mixed = dcm.mix(*own, cfg, size=size, partners=partners)
        followed = dcm.mix_masks(
            fed(masks[0]), mixed.params, blend="heavier", partners=fed(masks[1])
        )
        found = [x for p in mixed.params.patterns for x in (p.chosen, p.numbers)]
        return mixed.images, mixed.targets, mixed.params.lam, followed, *found

    kinds = set()
    for out, targets, lam, followed, *found in graphs.run(pipe(), 12):
        for i in range(count):
            k = next(k for k in range(4) if found[2 * k][i])
            kinds.add(type(EACH[k]))
            expected = images[i].astype(float)
            weights = np.ones(size)
            if EACH[k] is CUT:
                y, x, h, w = found[7][i]
                expected[y : y + h, x : x + w] = 7
            else:
                weights = shown_by(EACH[k], found[2 * k + 1][i], size) * 1.0
                expected = reference.averaged(others[i], images[i], weights)
            assert np.abs(out[i] - expected).max() < 0.5 + 1e-4
            assert np.array_equal(followed[i], np.where(weights >= 0.5, masks[0, i], masks[1, i]))
            row = reference.mixed_row(np.eye(14)[i], np.eye(14)[i + 7], lam[i])
            assert np.abs(targets[i] - row).max() < 1e-6
    assert count == 1 or len(kinds) == 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("methods", [EACH, EACH[:1]], ids=["each", "GridMix"])
def test_params_repeat_patterns_on_other_images(
    methods: list[Any], keep_order: bool, device: str
) -> None:
    size, cfg = (12, 17), dcm.MixConfig(num_classes=16, methods=tuple(methods))
    images = graphs.distinct_images(np.random.default_rng(1), 16, size)

    @pipeline_def(batch_size=16, num_threads=1, device_id=0 if device == "gpu" else None, seed=2)
    def pipe(known: bool) -> Any:
        labels = graphs.feed(np.arange(16, dtype=np.int32)[:, None])
        nodes = graphs.feed(images, "HWC"), graphs.feed(images.astype(np.float32), "HWC")
        first, second = (x.gpu() if device == "gpu" else x for x in nodes)
        mixed = dcm.mix(first, labels, cfg, size=size, keep_order=keep_order)
        options = {"size": size} if known or len(methods) > 1 else {}  # FMix needs it
        again = dcm.mix(second, labels, cfg, params=mixed.params, dtype="float32", **options)
        return mixed.images, again.images, mixed.targets, again.targets

    for known in (True, False):
        for a, b, targets, targets_again in graphs.run(pipe(known), 3):
            assert np.abs(a - b).max() < 0.5 + 1e-4
            assert np.array_equal(targets, targets_again)


def refusal(
    methods: tuple[Any, ...], call: Any, size: tuple[int, ...] = (12, 17), count: int = 4
) -> str:
    """What a graph with a mix, and what is called with it, says when it fails."""
    images = np.zeros((count, *size, 3), np.uint8)

    @pipeline_def(batch_size=count, num_threads=1, device_id=None, seed=2)
    def pipe() -> Any:
        return call(graphs.feed(images, "HWC"), dcm.MixConfig(num_classes=4, methods=methods))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
            pipe().run()
    return (explain(caught.value) if caught.type is RuntimeError else None) or str(caught.value)


def test_fmix_needs_the_size() -> None:
    said = refusal((dcm.FMix(),), lambda x, cfg: dcm.mix(x, None, cfg).images)
    assert said.startswith("`size` must be given to mix() with FMix")


def test_gridmix_needs_room() -> None:
    def mixed(images: Any, cfg: dcm.MixConfig) -> Any:
        return dcm.mix(images, None, cfg, size=(12, 17)).images

    assert refusal((dcm.GridMix(holes=9),), mixed).startswith(
        "`holes` must be at most half of the width of the images, got 9 for a width of 17."
    )
    for method, size in ((dcm.GridMix(holes=9), (12, 17)), (dcm.GridMix(holes=2), (21, 5))):
        said = refusal((method,), lambda x, cfg: dcm.mix(x, None, cfg).images, size)
        assert said.startswith("The images must be at least twice as wide as GridMix has `holes`")


def test_cutout_fills_all_channels() -> None:
    said = refusal(
        (dcm.Cutout(fill=(1, 2)),), lambda x, cfg: dcm.mix(x, None, cfg, size=(12, 17)).images
    )
    assert said.startswith("`fill` of Cutout must be a number, or one for each channel")


@pytest.mark.parametrize("fill", [-0.1, 255.5, (0, 0, 256)])
def test_cutout_fills_with_what_bytes_can_be(fill: Any) -> None:
    cfg = dcm.MixConfig(num_classes=8, methods=(dcm.Cutout(fill=fill),))
    with pytest.raises(ValueError, match=r"`fill` of Cutout must be in \[0, 255\] for uint8"):
        run_drawn(np.zeros((8, 9, 10, 3), np.uint8), cfg)
    run_drawn(np.zeros((8, 9, 10, 3), np.float32), cfg, dtype="float32")


@pytest.mark.parametrize("method", EACH, ids=IDS)
def test_volumes_are_refused(method: Any) -> None:
    name = type(method).__name__

    def volumes(images: Any, cfg: dcm.MixConfig) -> Any:
        return dcm.mix(images, None, cfg, size=(12, 17, 3), layout="DHW").images

    said = refusal((method,), volumes)
    assert said == f"`methods` must be CutMix, ObjectCutMix or MixUp for volumes, got {name}."

    def repeated(images: Any, cfg: dcm.MixConfig) -> Any:
        params = dcm.mix(images, None, cfg, size=(12, 17)).params
        return dcm.mix(
            images, None, dcm.MixConfig(), params=params, size=(12, 17, 3), layout="DHW"
        ).images

    said = refusal((method,), repeated)
    assert said == f"`params` must be of CutMix or MixUp for volumes, got those of {name}."


@pytest.mark.parametrize("method", EACH[:3], ids=IDS[:3])
def test_boxes_of_objects_are_refused(method: Any) -> None:
    def boxes(images: Any, cfg: dcm.MixConfig) -> Any:
        params = dcm.mix(images, None, cfg, size=(12, 17)).params
        rows = graphs.feed(np.zeros((4, 2, 4), np.float32))
        return dcm.mix_boxes(rows, graphs.feed(np.zeros((4, 2), np.int32)), params)

    said = refusal((method, dcm.CutMix()), boxes)
    assert said.startswith(f"`params` must not be of {type(method).__name__} for mix_boxes()")


def test_masks_of_smoothmix_are_refused_unless_asked_for() -> None:
    def masks(images: Any, cfg: dcm.MixConfig) -> Any:
        params = dcm.mix(images, None, cfg, size=(12, 17)).params
        return dcm.mix_masks(images[:, :, 0], params)

    assert refusal((SMOOTH,), masks).startswith('`blend` must be "heavier" where')


def test_params_are_for_images_of_one_size() -> None:
    def small(images: Any, cfg: dcm.MixConfig, **options: Any) -> Any:
        params = dcm.mix(images, None, cfg, size=(12, 17)).params
        return dcm.mix(images[:8], None, cfg, params=params, **options).images

    said = refusal((GRID,), lambda x, cfg: small(x, cfg, size=(8, 17)))
    assert said.endswith("that they were drawn for, (12, 17), got (8, 17).")
    assert refusal((GRID,), small).startswith(
        "`params` with `patterns` must be repeated on images of the size"
    )

    def gray(images: Any, cfg: dcm.MixConfig) -> Any:
        params = dcm.mix(images, None, cfg, size=(12, 17)).params
        return dcm.mix(images[:, :, :1], None, cfg, params=params, size=(12, 17)).images

    assert refusal((SMOOTH,), gray).startswith("`params` of a mix that blends must not be given")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dcm.GridMix(holes=0), ValueError, "`holes` must be at least 1, got 0"),
        (lambda: dcm.GridMix(holes=2.5), TypeError, "`holes` must be an int, got 2.5"),
        (lambda: dcm.GridMix(holes=(4, 2)), ValueError, r"`holes` must be a whole number or \("),
        (lambda: dcm.GridMix(holes=(1.5, 2)), ValueError, "`holes` must be a whole number or"),
        (lambda: dcm.GridMix(lam=(0.5, 0.5)), ValueError, r"`lam` must be \(lo, hi\) with 0 <="),
        (lambda: dcm.GridMix(lam=0.5), TypeError, "`lam` must be 2 numbers"),
        (lambda: dcm.FMix(alpha=0), ValueError, "`alpha` must be in"),
        (lambda: dcm.FMix(decay=-1), ValueError, r"`decay` must be in \[0, 10\], got -1"),
        (lambda: dcm.FMix(fields=0), ValueError, "`fields` must be at least 1"),
        (lambda: dcm.FMix(fields=2000), ValueError, "`fields` must be at most 1024"),
        (lambda: dcm.FMix(seed=-1), ValueError, "`seed` must be at least 0"),
        (lambda: dcm.SmoothMix(scope=(0, 1)), ValueError, r"`scope` must be \(lo, hi\) with 0 <"),
        (lambda: dcm.SmoothMix(scope="ab"), TypeError, "`scope` must be 2 numbers"),
        (lambda: dcm.Cutout(length=1), ValueError, "`length` must be at least 2, got 1"),
        (lambda: dcm.Cutout(fill="7"), TypeError, "`fill` must be a number, got '7'"),
        (lambda: dcm.Cutout(fill=()), ValueError, "`fill` must be a number, or one for each"),
        (lambda: dcm.Cutout(fill=(1, "2")), TypeError, "`fill` must be a number, got '2'"),
    ],
)
def test_wrong_options_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# Boxes of objects follow Cutout


@pytest.mark.parametrize("beside", [(), (dcm.CutMix(), dcm.MixUp()), (dcm.Mosaic(),)], ids=str)
@pytest.mark.parametrize("keep", [(0.5, 0.5), (0.1, 0.9)], ids=str)
def test_boxes_that_cutout_covers_are_dropped(
    keep: tuple[float, float], beside: tuple[Any, ...]
) -> None:
    rng, count, size = np.random.default_rng(5), 256, (24, 40)
    boxes = random_boxes(rng, count, 20)
    classes = [np.arange(len(rows)) for rows in boxes]
    cut = dcm.Cutout(length=20)
    cfg = dcm.MixConfig(methods=(cut, *beside))

    @pipeline_def(batch_size=count, num_threads=1, device_id=None, seed=2)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((count, *size, 3), np.uint8), "HWC")
        params = dcm.mix(images, None, cfg, size=size).params
        found = dcm.mix_boxes(graphs.feed(boxes), graphs.feed(classes), params, keep=keep)
        return (*found, params.patterns[0].chosen, params.patterns[0].numbers)

    out = [[np.array(sample) for sample in output] for output in pipe().run()]
    dropped = cut_out = 0
    for i in range(count):
        if not out[2][i]:
            continue
        y, x, h, w = out[3][i].tolist()
        stay, _, _ = reference.shown_boxes(
            boxes[i], boxes[i][:0], (y, x, h, w), size, keep, method="CutMix"
        )
        assert out[1][i].tolist() == stay
        assert np.array_equal(out[0][i], boxes[i][stay])
        dropped += len(boxes[i]) - len(stay)
        cut_out += 1
    assert cut_out > 60
    assert dropped > 50
