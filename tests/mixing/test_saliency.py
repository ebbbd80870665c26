"""Methods that look at the saliency of images, native or given, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def
from nvidia.dali.pipeline import do_not_convert
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.mixing.methods.cutmix import exact_boxes
from dali_cutmix.mixing.plan import Size
from dali_cutmix.mixing.saliency import Saliency, peak
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZES = [(7, 11), (33, 20), (12, 40), (8, 8), (19, 57)]
SALIENCYMIX = (dcm.SaliencyMix(),)
SNAPMIX = (dcm.SnapMix(),)
ATTENTIVEMIX = (dcm.AttentiveMix(),)
ALL = (
    *(dcm.SnapMix(), dcm.SaliencyMix(), dcm.AttentiveMix(cells=5, pasted=3), dcm.GridMix(holes=4)),
    *(dcm.CutMix(), dcm.MixUp(), dcm.ResizeMix(), dcm.Mosaic()),
)
FIELDS = ("lam", "box", "partner", "original", "blended", "resized", "tiled", "source")


def random_maps(rng: np.random.Generator, count: int) -> list[Array]:
    """Of many sizes and few values, so that most have several largest cells; some all alike."""
    maps = []
    for k in range(count):
        most = rng.choice([0, 2, 5, 255], p=[0.1, 0.3, 0.3, 0.3]) + 1
        area = rng.integers(0, most, rng.integers(1, 17, 2))
        maps.append((area / 4 - 3).astype(np.float32) if k % 2 else area.astype(np.float32))
    return maps


def plain_images(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Array:
    """Noise: where images are resized in part, one that repeats would not show from where."""
    return rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)


def expected_row(label_a: int, label_b: int, weights: tuple[float, float]) -> Array:
    row = np.zeros(10)
    row[label_a] += weights[0]
    row[label_b] += weights[1]
    return row


# The rule, with injected draws


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("given", ["maps", "points"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_saliencymix_equals_the_reference(size: tuple[int, int], given: str, device: str) -> None:
    # 5 sizes x 2 x 512 samples.
    count, rng = 512, np.random.default_rng(list(size))
    images, labels = plain_images(rng, count, size), rng.integers(0, 10, count, dtype=np.int32)
    points: Any = rng.choice([0.0, 1.0, 0.5, *rng.random(20)], (count, 2)).astype(np.float32)
    draws: dict[str, Any] = {
        "lam": rng.choice([0.0, 1.0, 0.5, *rng.random(20)], count),
        "partner": rng.integers(0, count, count, dtype=np.int32),
        "saliency": random_maps(rng, count) if given == "maps" else list(points),
    }
    cfg = dcm.MixConfig(num_classes=10, methods=SALIENCYMIX)
    pipe = graphs.mix_pipeline(images, labels, cfg, draws=draws, device=device)
    ((out, lam, box, partner, target),) = graphs.run(pipe)
    for i, j in enumerate(partner):
        centre = reference.salient_pixel(draws["saliency"][j], size)
        expected = reference.paper_box(draws["lam"][i], centre, size)
        assert tuple(box[i]) == expected, i
        assert np.array_equal(out[i], reference.pasted(images[i], images[j], expected))
        shown = reference.original_pixels(expected, size)
        assert lam[i] == np.float32(shown / (size[0] * size[1]))
        row = expected_row(labels[i], labels[j], (lam[i], 1 - lam[i]))
        assert np.abs(target[i] - row).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("labels_are", ["int", "float"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_snapmix_equals_the_reference(size: tuple[int, int], labels_are: Any, device: str) -> None:
    # 5 sizes x 2 x 512 samples. Of float labels equal classes cannot be told.
    count, rng = 512, np.random.default_rng(list(size))
    images, classes = plain_images(rng, count, size), rng.integers(0, 4, count, dtype=np.int32)
    labels = classes if labels_are == "int" else np.eye(10, dtype=np.float32)[classes]
    draws: dict[str, Any] = {
        "lam": rng.choice([0.0, 1.0, 0.5, *rng.random(20)], count),
        "partner's lam": rng.choice([0.0, 1.0, 0.5, *rng.random(20)], count),
        "position": rng.choice([0.0, 1 - 1e-12, *rng.random(20)], (count, 2)),
        "partner's position": rng.choice([0.0, 1 - 1e-12, *rng.random(20)], (count, 2)),
        "partner": rng.integers(0, count, count, dtype=np.int32),
        "saliency": random_maps(rng, count),
    }
    cfg = dcm.MixConfig(num_classes=10, methods=SNAPMIX, labels=labels_are)
    pipe = graphs.mix_pipeline(images, labels, cfg, draws=draws, device=device)
    ((out, lam, box, partner, target),) = graphs.run(pipe)
    mixed = equal = 0
    for i, j in enumerate(partner):
        found, source = (
            reference.paper_box(
                draws[f"{whose}lam"][i],
                tuple(np.floor(draws[f"{whose}position"][i] * size).astype(int)),
                size,
            )
            for whose in ("", "partner's ")
        )
        if not found[2] * found[3] * source[2] * source[3]:
            assert tuple(box[i]) == (*size, 0, 0)
            assert lam[i] == 1
            assert np.array_equal(out[i], images[i])
            assert np.abs(target[i] - np.eye(10)[classes[i]]).max() < 1e-6
            continue
        assert tuple(box[i]) == found
        exact = reference.part_resized_into(images[i], images[j], found, source)
        assert np.abs(out[i] - exact).max() < 0.51
        same = labels_are == "int" and classes[i] == classes[j]
        maps = draws["saliency"]
        weights = reference.snapmix_weights(maps[i], maps[j], found, source, size, same)
        row = expected_row(classes[i], classes[j], weights)
        assert np.abs(target[i] - row).max() < 3e-6, i
        mixed, equal = mixed + 1, equal + same
    assert mixed > 300
    assert (equal > 30) == (labels_are == "int")


def test_weights_of_snapmix_are_in_0_to_1_and_repeated_to_the_bit() -> None:
    # Where a box covers all of a map's mass, or none, sums in float32 are a little off.
    rng, count, size = np.random.default_rng(0), 64, (27, 31)
    maps = np.zeros((count, 14, 14), np.float32)
    for area in maps[: count // 2]:
        y, x = rng.integers(0, 11, 2)
        area[y : y + 3, x : x + 3] = rng.random((3, 3))
    maps[count // 2 :] = rng.random((count // 2, 14, 14)) ** 3

    @pipeline_def(batch_size=count, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        images = graphs.feed(plain_images(rng, count, size), "HWC")
        labels = graphs.feed(np.arange(count, dtype=np.int32))
        methods = (dcm.SnapMix(alpha=1),)
        cfg = dcm.MixConfig(num_classes=count, methods=methods, partner="derangement")
        mixed = dcm.mix(images, labels, cfg, saliency=graphs.feed(maps))
        again = dcm.mix(images, labels, cfg, params=mixed.params)
        weights = (mixed.params.lam, mixed.params.lam_partner, mixed.targets)
        repeated = (again.params.lam, again.params.lam_partner, again.targets)
        return (*weights, *repeated)

    for batch in graphs.run(pipe(), 5):
        for weights, repeated in zip(batch[:3], batch[3:], strict=True):
            assert np.array_equal(weights, repeated)
        found = np.concatenate([x.ravel() for x in batch])
        assert found.min() == 0
        assert found.max() == 1


def test_snapmix_has_the_label_weights_of_the_authors_code() -> None:
    # Of their code: maps normalised to mass 1, sums in two boxes, equal classes and maps alike.
    rng, size = np.random.default_rng(0), (16, 24)
    for _ in range(200):
        maps = [rng.random(size) * rng.integers(0, 2) for _ in range(2)]
        (box, source), equal = random_boxes(rng, size, 2), bool(rng.integers(2))
        with np.errstate(invalid="ignore"):
            mass = [m - m.min() for m in maps]
            mass = [m / m.sum() for m in mass]
        (ya, xa, ha, wa), (yb, xb, hb, wb) = box, source
        lam_a = 1 - mass[0][ya : ya + ha, xa : xa + wa].sum()
        lam_b = mass[1][yb : yb + hb, xb : xb + wb].sum()
        if equal:
            lam_a, lam_b = lam_a + lam_b, lam_b + lam_a
        lam = 1 - ha * wa / (size[0] * size[1])
        if not np.isnan([lam_a, lam_b]).any() or not equal:  # else theirs differ from their paper
            theirs = (lam if np.isnan(lam_a) else lam_a, 1 - lam if np.isnan(lam_b) else lam_b)
            ours = reference.snapmix_weights(maps[0], maps[1], box, source, size, equal)
            assert np.allclose(ours, theirs, atol=1e-9)


def random_boxes(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> list[reference.Box]:
    found = []
    for _ in range(count):
        (y, y1), (x, x1) = (np.sort(rng.choice(s + 1, 2, replace=False)).tolist() for s in size)
        found.append((y, x, y1 - y, x1 - x))
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(33, 20), (12, 40), (5, 31)], ids=str)
@pytest.mark.parametrize(("cells", "pasted"), [(7, 6), (3, 8)])
def test_attentivemix_equals_the_reference(
    cells: int, pasted: int, size: tuple[int, int], device: str
) -> None:
    # 6 x 1,024 samples: 4 batches of 256, half of them of maps that divide into the cells, and have
    # many that are equal. In others equal sums would be equal but for their rounding.
    rng = np.random.default_rng([*size, cells])
    images = plain_images(rng, 256, size)
    cfg = dcm.MixConfig(num_classes=256, methods=(dcm.AttentiveMix(cells=cells, pasted=pasted),))
    for seed in range(4):
        maps = [rng.random(rng.integers(1, 17, 2)).astype(np.float32) for _ in range(256)]
        if seed % 2:
            maps = [rng.integers(0, 4, (cells, 2 * cells), dtype=np.uint8) for _ in range(256)]
        options = {"device": device, "known": seed > 1, "keep_order": seed > 0, "seed": seed}
        (batch,) = run_mix(images, cfg, 1, maps, **options)
        for k, j in enumerate(batch["partner"]):
            i = int(batch["original"][k]) if "original" in batch else k
            chosen = reference.attended_cells(maps[j], cells, pasted)
            expected = reference.cells_pasted(images[i], images[j], chosen, cells)
            assert np.array_equal(batch["images"][k], expected), k
            ones, zeros = np.ones(size), np.zeros(size)
            lam = reference.cells_pasted(ones, zeros, chosen, cells).sum() / ones.size
            assert abs(batch["lam"][k] - lam) < 1e-6
            row = np.zeros(256)
            np.add.at(row, [i, j], [lam, 1 - lam])
            assert np.abs(batch["target"][k] - row).max() < 1e-6
            assert tuple(batch["box"][k]) == (*size, 0, 0)


# As it is drawn


def run_mix(
    images: Array, cfg: dcm.MixConfig, iterations: int, saliency: Any = None, **options: Any
) -> list[dict[str, Any]]:
    """Images, targets and plans of each batch. The class is the sample."""
    device, known = options.pop("device", "cpu"), options.pop("known", True)
    conditionals, again = options.pop("conditionals", False), options.pop("again", False)
    seed, names = options.pop("seed", 1), []
    labels = options.pop("labels", np.arange(len(images)))

    @do_not_convert
    def outputs() -> Any:
        pixels = graphs.feed(images, "HWC")
        pixels = pixels.gpu() if device == "gpu" else pixels
        if known:
            options["size"] = images.shape[1:3]
        fed = graphs.feed(labels)
        seen = None if saliency is None else graphs.feed(saliency)
        mixed = dcm.mix(pixels, fed, cfg, saliency=seen, **options)
        found = {name: getattr(mixed.params, name) for name in FIELDS}
        found = {name: x for name, x in found.items() if x is not None}
        more = {}
        if mixed.params.patterns:
            chosen = {pattern.method: pattern.chosen for pattern in mixed.params.patterns}
            more["patterns"] = fn.stack(*(chosen[m] for m in cfg.methods if m in chosen))
        if again:
            repeated = dcm.mix(pixels, fed, cfg, params=mixed.params)
            more |= {"images again": repeated.images, "target again": repeated.targets}
            if mixed.params.blended is None:
                more["masks"] = dcm.mix_masks(pixels, mixed.params)
        names[:] = ["images", "target", *found, *more]
        return (mixed.images, mixed.targets, *found.values(), *more.values())

    @pipeline_def(
        batch_size=len(images),
        num_threads=2,
        device_id=0 if device == "gpu" else None,
        seed=seed,
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


def possible_boxes(centre: tuple[int, int], size: tuple[int, int]) -> set[reference.Box]:
    """Of all lams the boxes around a place."""
    sides = np.unique(np.concatenate([np.arange(0, s + 1, 2) / s for s in size]))
    middles = (sides[:-1] + sides[1:]) / 2
    return {reference.paper_box(1 - r * r, centre, size) for r in middles}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize(
    ("mode", "known", "given"),
    [("elem", True, True), ("batch", False, True), ("elem", False, False), ("batch", True, False)],
    ids=["given", "given, batch, size unknown", "native, size unknown", "native, batch"],
)
def test_what_is_cut_lies_around_the_peak(
    mode: Any, known: bool, given: bool, keep_order: bool, device: str
) -> None:
    # The native map is that of the graph, see below.
    rng, size = np.random.default_rng(1), (24, 40)
    images = smooth_images(rng, 16, size)
    maps = random_maps(rng, 16) if given else native_maps(images, device)
    cfg = dcm.MixConfig(num_classes=16, methods=SALIENCYMIX, mode=mode, prob=0.8)
    options = {"known": known, "keep_order": keep_order, "device": device}
    centres = [reference.salient_pixel(m, size) for m in maps]
    cut = 0
    for batch in run_mix(images, cfg, 6, maps if given else None, **options):
        halves = set()
        for k in range(16):
            i = int(batch["original"][k]) if "original" in batch else k
            j, box = int(batch["partner"][k]), tuple(batch["box"][k].tolist())
            lam = float(batch["lam"][k])
            assert np.array_equal(batch["images"][k], reference.pasted(images[i], images[j], box))
            assert lam == np.float32(reference.original_pixels(box, size) / (size[0] * size[1]))
            row = np.zeros(16)
            np.add.at(row, [i, j], [lam, 1 - lam])
            assert np.abs(batch["target"][k] - row).max() < 1e-6
            if lam < 1:
                assert box in possible_boxes(centres[j], size)
                cut += 1
            halves.add(lam < 1)
        assert mode == "elem" or len(halves) == 1
    assert cut > 30


def smooth_images(rng: np.random.Generator, count: int, size: tuple[int, int]) -> Array:
    """A few bright and dark spots each."""
    y, x = np.mgrid[: size[0], : size[1]]
    images = np.full((count, *size, 3), 120.0)
    for image in images:
        for _ in range(4):
            at, wide = rng.random(2) * size, rng.uniform(1, 5)
            spot = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * wide**2))
            image += spot[..., None] * rng.uniform(-110, 110, 3)
    return np.clip(images, 0, 255).astype(np.uint8)


def native_maps(images: Array, device: str = "cpu") -> list[Array]:
    """What the graph has."""

    @pipeline_def(batch_size=len(images), num_threads=2, device_id=0 if device == "gpu" else None)
    def pipe() -> Any:
        pixels = graphs.feed(images, "HWC")
        return Saliency.native(pixels.gpu() if device == "gpu" else pixels).map

    ((maps,),) = (pipe().run(),)
    return [np.array(m) for m in maps]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(224, 224), (33, 70), (56, 56), (9, 150)], ids=str)
def test_the_native_saliency_equals_the_reference(size: tuple[int, int], device: str) -> None:
    # To a ten thousandth of its largest, of bytes and of floats.
    images = smooth_images(np.random.default_rng(2), 24, size)
    images[0] = 77
    of_bytes, floats = (native_maps(x, device) for x in (images, images.astype(np.float32)))
    for image, found, other in zip(images, of_bytes, floats, strict=True):
        expected = reference.native_saliency(image)
        assert found.shape == other.shape == (56, 56)
        assert np.abs(found - expected).max() <= 1e-4 * expected.max() + 1e-6
        assert np.abs(found - other).max() <= 1e-4 * expected.max() + 1e-6


def test_images_of_other_channels_and_floats_have_a_native_saliency() -> None:
    images = smooth_images(np.random.default_rng(2), 16, (40, 30))
    expected = [reference.native_saliency(image) for image in images]
    for channels, dtype in ((1, np.uint8), (5, np.uint8), (3, np.float32)):
        gray = np.rint(images.mean(axis=3, keepdims=True))
        changed = np.repeat(gray, channels, axis=3).astype(dtype)
        if dtype == np.float32:
            changed = images.astype(dtype) / 100 - 1
        for found, other in zip(native_maps(changed), expected, strict=True):
            assert np.corrcoef(found.ravel(), other.ravel())[0, 1] > 0.97


def test_the_peak_of_maps_is_the_first_of_the_largest() -> None:
    # 2,000 maps and points of one graph, most of several largest cells.
    rng, size = np.random.default_rng(4), (37, 61)
    maps = random_maps(rng, 2000)

    @pipeline_def(batch_size=2000, num_threads=2, device_id=None)
    def pipe() -> Any:
        return peak(Saliency.given(graphs.feed(maps)), Size.of_known(size))

    (found,) = pipe().run()
    for one, pixel in zip(maps, found.as_array(), strict=True):
        assert tuple(pixel[0]) == reference.salient_pixel(one, size)
    assert np.mean([(m == m.max()).sum() > 1 for m in maps]) > 0.5


def test_sizes_are_drawn_as_the_paper_has_them() -> None:
    # 20,480 boxes around the middle, which clips none: sides by chi-square, p > 1e-3.
    images, size = np.zeros((64, 40, 40, 3), np.uint8), (40, 40)
    cfg = dcm.MixConfig(num_classes=64, methods=SALIENCYMIX)
    middle = [np.array([0.5, 0.5], np.float32)] * 64
    drawn = np.concatenate([b["box"] for b in run_mix(images, cfg, 320, middle, seed=5)])
    probabilities, (by_centre, _) = exact_boxes(size)
    sides = by_centre[:, 20, 3]
    counts = np.array([(drawn[:, 2] == side).sum() for side in sides])
    assert counts.sum() == len(drawn)
    assert (drawn[:, 2] == drawn[:, 3]).all()
    assert stats.chisquare(counts, probabilities * len(drawn)).pvalue > 1e-3


def test_snapmix_draws_its_two_boxes_apart_and_as_cutmix_does() -> None:
    # 4,096 samples of alpha 5: KS of each side against CutMix's of the same alpha, p > 1e-4.
    rng = np.random.default_rng(0)
    images = np.zeros((64, 40, 30, 3), np.uint8)
    maps = [rng.random((3, 4)).astype(np.float32) for _ in range(64)]
    cfg = dcm.MixConfig(num_classes=64, methods=SNAPMIX)
    batches = run_mix(images, cfg, 64, maps, seed=6)
    box, source = (np.concatenate([b[name] for b in batches]) for name in ("box", "source"))
    plain = dcm.MixConfig(num_classes=64, methods=(dcm.CutMix(alpha=5.0),))
    cut = np.concatenate([b["box"] for b in run_mix(images, plain, 64, seed=7)])
    for column in range(4):
        for found in (box, source):
            assert stats.ks_2samp(found[:, column], cut[:, column]).pvalue > 1e-4
    assert abs(np.corrcoef(box[:, 2], source[:, 2])[0, 1]) < 0.08
    assert abs(np.corrcoef(box[:, 0], source[:, 0])[0, 1]) < 0.08


# Beside other methods


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("labels_are", ["int", "float"])
def test_beside_other_methods(labels_are: Any, known: bool, device: str) -> None:
    rng, size = np.random.default_rng(3), (24, 40)
    images = plain_images(rng, 16, size)
    maps = [rng.random(rng.integers(1, 17, 2)).astype(np.float32) for _ in range(16)]
    cfg = dcm.MixConfig(num_classes=16, methods=ALL, prob=0.9, labels=labels_are)
    labels = np.eye(16, dtype=np.float32) if labels_are == "float" else np.arange(16)
    seen = {"snapped": 0, "cells": 0, "cut": 0, "other": 0}
    options = {"known": known, "device": device, "labels": labels}
    for batch in run_mix(images, cfg, 16, maps, **options):
        for k in range(16):
            box, source = (tuple(batch[name][k].tolist()) for name in ("box", "source"))
            j, lam, row = int(batch["partner"][k]), float(batch["lam"][k]), np.zeros(16)
            if source[2]:
                exact = reference.part_resized_into(images[k], images[j], box, source)
                assert np.abs(batch["images"][k] - exact).max() < 0.51
                same = labels_are == "int" and j == k
                weights = reference.snapmix_weights(maps[k], maps[j], box, source, size, same)
                np.add.at(row, [k, j], weights)
                assert np.abs(batch["target"][k] - row).max() < 3e-6
                seen["snapped"] += 1
            elif source[3] == 0 and (chosen := batch["patterns"][k]).any():
                cells = reference.attended_cells(maps[j], 5, 3)
                expected = reference.cells_pasted(images[k], images[j], cells, 5)
                if chosen[0]:
                    assert np.array_equal(batch["images"][k], expected)
                seen["cells"] += chosen[0]
                assert abs(batch["target"][k].sum() - 1) < 1e-6
            elif not (batch["tiled"][k] or batch["resized"][k] or batch["blended"][k]):
                expected = reference.pasted(images[k], images[j], box)
                assert np.array_equal(batch["images"][k], expected)
                np.add.at(row, [k, j], [lam, 1 - lam])
                assert np.abs(batch["target"][k] - row).max() < 1e-6
                seen["cut"] += 1
            else:
                if batch["resized"][k]:
                    expected = reference.resized_into(images[k], images[j], box)
                    assert np.array_equal(batch["images"][k], expected)
                assert abs(batch["target"][k].sum() - 1) < 1e-6
                seen["other"] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "methods", [SALIENCYMIX, SNAPMIX, ATTENTIVEMIX, ALL], ids=["alone", "snap", "cells", "all"]
)
def test_a_plan_is_repeated_and_masks_follow(methods: Any, device: str) -> None:
    rng, size = np.random.default_rng(3), (24, 41)
    images, maps = plain_images(rng, 16, size), random_maps(rng, 16)
    cfg = dcm.MixConfig(num_classes=16, methods=methods)
    for batch in run_mix(images, cfg, 4, maps, again=True, device=device):
        assert np.array_equal(batch["images"], batch["images again"])
        assert np.array_equal(batch["target"], batch["target again"])
        if "masks" not in batch:
            continue
        for k, mask in enumerate(batch["masks"]):
            if methods == ATTENTIVEMIX:
                assert np.array_equal(mask, batch["images"][k])
                continue
            image, partner = images[k], images[int(batch["partner"][k])]
            y, x, h, w = batch["box"][k].tolist()
            expected = reference.pasted(image, partner, (y, x, h, w))
            if methods == SNAPMIX and h:
                y1, x1, h1, w1 = batch["source"][k].tolist()
                ys, xs = (
                    start + np.arange(side) * (count - 1) / max(side - 1, 1)
                    for start, count, side in ((y1, h1, h), (x1, w1, w))
                )
                # Where a place is just between two pixels either will do.
                near = [np.abs(v - np.floor(v) - 0.5) > 1e-3 for v in (ys, xs)]
                rows, columns = (np.floor(v + 0.5).astype(int) for v in (ys, xs))
                expected[y : y + h, x : x + w] = partner[rows][:, columns]
                certain = near[0][:, None] & near[1][None]
                both = mask[y : y + h, x : x + w], expected[y : y + h, x : x + w]
                assert np.array_equal(both[0][certain], both[1][certain])
                mask[y : y + h, x : x + w] = expected[y : y + h, x : x + w]
            assert np.array_equal(mask, expected)


def test_conditionals_and_pair_targets() -> None:
    rng = np.random.default_rng(3)
    images = smooth_images(rng, 16, (24, 40))
    cfg = dcm.MixConfig(num_classes=16, methods=SALIENCYMIX)
    plain, converted = (run_mix(images, cfg, 2, conditionals=flag) for flag in (False, True))
    assert np.array_equal(plain[1]["images"], converted[1]["images"])
    for methods in (SALIENCYMIX, ATTENTIVEMIX):
        cfg = dcm.MixConfig(num_classes=16, methods=methods, targets="pair")
        pipe = graphs.mix_pipeline(images, np.arange(16), cfg, known=True)
        ((_, lam, _, partner, label_a, label_b, weight),) = graphs.run(pipe)
        assert (label_a == np.arange(16)).all()
        assert (label_b == partner).all()
        assert (weight == lam).all()
        assert (lam < 1).any()


# What is refused


@pytest.mark.parametrize(
    "saliency",
    [
        [np.zeros((2, 2, 2), np.float32)] * 16,
        [np.float32(0.5)] * 16,
        [np.zeros(3, np.float32)] * 16,
        [np.zeros((0, 4), np.float32)] * 16,
        [np.array([0.5, 1.01], np.float32)] * 16,
        [np.array([-0.01, 0.5], np.float32)] * 16,
        [np.array([0.5, np.nan], np.float32)] * 16,
        [np.full((2, 2), np.nan, np.float32)] * 16,
        [np.array([[1, np.inf]], np.float32)] * 16,
        [np.zeros((257, 256), np.uint8)] * 16,
    ],
    ids=["axes", "scalar", "length", "empty", "over", "under", "nan", "nans", "inf", "large"],
)
def test_other_saliency_is_refused(saliency: Any) -> None:
    images = np.zeros((16, 8, 8, 3), np.uint8)
    cfg = dcm.MixConfig(num_classes=16, methods=SALIENCYMIX)
    with pytest.raises(RuntimeError) as error:
        run_mix(images, cfg, 1, saliency)
    assert (explain(error.value) or "").startswith("`saliency` must be a map of each image, (h, w)")


@pytest.mark.parametrize("methods", [SNAPMIX, ATTENTIVEMIX], ids=["snap", "cells"])
def test_points_are_refused(methods: Any) -> None:
    images, points = np.zeros((16, 8, 8, 3), np.uint8), [np.zeros(2, np.float32)] * 16
    with pytest.raises(RuntimeError) as error:
        run_mix(images, dcm.MixConfig(num_classes=16, methods=methods), 1, points)
    assert "got a point" in (explain(error.value) or "")


@pytest.mark.parametrize("method", [dcm.SaliencyMix, dcm.SnapMix, dcm.AttentiveMix])
def test_what_is_refused_when_a_configuration_is_made(method: Any) -> None:
    name = method.__name__
    with pytest.raises(ValueError, match=f'`mode` must be "elem" or "batch" with {name}'):
        dcm.MixConfig(methods=(method(),), mode="pair", partner="flip")
    wrong = [{"alpha": alpha} for alpha in (0, -1, 1e9)]
    if method is dcm.AttentiveMix:
        wrong = [{"cells": 1}, {"cells": 33}, {"pasted": 0}, {"pasted": 49}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"must be (in|at)"):
            method(**options)
    with pytest.raises(ValueError, match='`targets` must be "soft" with SnapMix'):
        dcm.MixConfig(methods=SNAPMIX, targets="pair")


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (SNAPMIX, {}, "`saliency` must be given where `methods` has SnapMix"),
        ((dcm.CutMix(),), {"saliency": "maps"}, "`saliency` must be left out unless"),
        (SALIENCYMIX, {"saliency": "gpu"}, "`saliency` must be on the CPU"),
        (SALIENCYMIX, {"partners": True}, "`methods` must not have SaliencyMix with `partners`"),
        (
            SALIENCYMIX,
            {"layout": "DHW", "size": (2, 2, 2)},
            "must be CutMix, ObjectCutMix or MixUp for volumes",
        ),
    ],
)
def test_what_is_refused_when_a_graph_is_built(
    methods: Any, options: dict[str, Any], message: str
) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 8, 8, 3), np.uint8))
        if "saliency" in options:
            maps = graphs.feed(np.zeros((16, 2, 2), np.uint8))
            options["saliency"] = maps.gpu() if options["saliency"] == "gpu" else maps
        if "partners" in options:
            options["partners"] = (images, None)
        return dcm.mix(images, None, dcm.MixConfig(methods=methods), **options).images

    with pytest.raises(ValueError, match=message):
        pipe()


@pytest.mark.parametrize("methods", [SNAPMIX, ATTENTIVEMIX], ids=["SnapMix", "AttentiveMix"])
def test_boxes_do_not_follow(methods: Any, request: pytest.FixtureRequest) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 8, 8, 3), np.uint8))
        maps, boxes = (graphs.feed(np.zeros((16, 2, k), np.float32)) for k in (2, 4))
        mixed = dcm.mix(images, None, dcm.MixConfig(methods=methods), saliency=maps)
        return dcm.mix_boxes(boxes, graphs.feed(np.zeros((16, 2))), mixed.params)

    with pytest.raises(ValueError, match=f"must not be .*{request.node.callspec.id}"):
        pipe()
