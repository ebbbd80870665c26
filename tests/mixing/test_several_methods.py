"""Several methods beside each other: `methods=` and `weights=`, ResizeMix among them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def

import dali_cutmix as dcm
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZES = [(7, 11), (33, 20), (8, 8), (12, 40), (3, 100)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resizemix_equals_the_reference(size: tuple[int, int], device: str) -> None:
    """Where H and W differ too: there openmixup's, and the authors', fails."""
    # 5 sizes x 1,000 samples, every pixel; the label is the counted share.
    count, rng = 1000, np.random.default_rng(list(size))
    images = graphs.distinct_images(rng, count, size)
    cfg = dcm.MixConfig(num_classes=2, methods=(dcm.ResizeMix(),))
    draws = {
        "scale": rng.choice([0.0, 1 - 1e-12, *rng.random(40)], count),
        "position": rng.choice([0.0, 1 - 1e-12, *rng.random(20)], (count, 2)),
        "partner": rng.integers(0, count, count, dtype=np.int32),
    }
    labels = rng.integers(0, 2, count)
    pipe = graphs.mix_pipeline(images, labels, cfg, draws=draws, device=device)
    ((out, lam, box, partner, target),) = graphs.run(pipe)
    for i, j in enumerate(partner):
        scale = 0.1 + draws["scale"][i] * (0.8 - 0.1)
        expected = reference.resizemix_box(scale, draws["position"][i], size)
        assert tuple(box[i]) == expected
        shown = reference.resized_into(images[i], images[j], expected)
        assert np.array_equal(out[i], shown)
        fraction = reference.original_pixels(expected, size) / (size[0] * size[1])
        assert lam[i] == np.float32(fraction)
        row = reference.mixed_row(np.eye(2)[labels[i]], np.eye(2)[labels[j]], lam[i])
        assert np.abs(target[i] - row).max() < 1e-6


METHODS = (dcm.CutMix(), dcm.ResizeMix(), dcm.MixUp(alpha=0.5))


def kinds(images: Array, batch: list[Array]) -> list[str]:
    """Which method each sample had, as its pixels show; asserts that they are right."""
    out, lam, box, partner, *own, _, blended = batch
    original, found = own[0] if own else np.arange(len(images)), []
    for k, (i, j) in enumerate(zip(original, partner, strict=True)):
        b = tuple(box[k].tolist())
        if blended[k]:
            graphs.assert_blended(out[k], images[i], images[j], lam[k])
            found.append("MixUp")
        elif not b[2] * b[3]:
            assert np.array_equal(out[k], images[i])
            found.append("none")
        elif np.array_equal(out[k], reference.pasted(images[i], images[j], b)):
            found.append("CutMix")
        else:
            assert np.array_equal(out[k], reference.resized_into(images[i], images[j], b))
            found.append("ResizeMix")
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("mode", ["elem", "batch", "pair"])
def test_every_sample_is_mixed_by_one_of_the_methods(
    mode: Any, known: bool, keep_order: bool, device: str
) -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 32, (24, 31))
    cfg = dcm.MixConfig(
        num_classes=32,
        methods=METHODS,
        weights=(0.5, 0.3, 0.2),
        mode=mode,
        partner="flip",
        prob=0.9,
    )
    pipe = graphs.mix_pipeline(
        images,
        np.arange(32, dtype=np.int32)[:, None],
        cfg,
        device=device,
        keep_order=keep_order,
        known=known,
        with_blended=True,
    )
    found = [kinds(images, batch) for batch in graphs.run(pipe, 16)]
    assert {"CutMix", "ResizeMix", "MixUp"} <= {kind for batch in found for kind in batch}
    if mode == "batch":  # "none" is also a box without area, or a sample that meets itself
        assert all(len(set(batch) - {"none"}) <= 1 for batch in found)


@pytest.mark.slow
def test_the_methods_have_their_weights() -> None:
    # 80 batches of 64, 5 standard deviations; prob 0.8. Boxes of no area are CutMix's.
    images = graphs.distinct_images(np.random.default_rng(1), 64, (24, 31))
    cfg = dcm.MixConfig(
        num_classes=64,
        methods=METHODS,
        weights=(0.5, 0.3, 0.2),
        prob=0.8,
        partner="derangement",
    )
    labels = np.arange(64, dtype=np.int32)[:, None]
    pipe = graphs.mix_pipeline(images, labels, cfg, with_blended=True)
    found = [kind for batch in graphs.run(pipe, 80) for kind in kinds(images, batch)]
    n = len(found)
    for kind, expected in (("MixUp", 0.16), ("ResizeMix", 0.24)):
        tolerance = 5 * np.sqrt(expected * (1 - expected) / n)
        assert abs(found.count(kind) / n - expected) < tolerance, kind


def test_the_short_form_is_sugar() -> None:
    images = graphs.distinct_images(np.random.default_rng(1), 16, (24, 31))
    short = dcm.MixConfig(num_classes=16, mixup_alpha=0.4, switch_prob=0.3, box="timm", prob=0.9)
    long = dcm.MixConfig(
        num_classes=16,
        methods=[dcm.CutMix(box="timm"), dcm.MixUp(alpha=0.4)],
        weights=[0.3, 0.7],
        prob=0.9,
    )
    assert long.weighted_methods == short.weighted_methods
    for a, b in zip(
        *(graphs.run(graphs.mix_pipeline(images, np.arange(16), c), 3) for c in (short, long)),
        strict=True,
    ):
        for x, y in zip(a, b, strict=True):
            assert np.array_equal(x, y)


def test_two_of_a_kind_draw_apart() -> None:
    # Half of the samples have either; were their draws alike, all boxes came in one of two sizes.
    images = graphs.distinct_images(np.random.default_rng(1), 64, (40, 40))
    cfg = dcm.MixConfig(
        num_classes=64, methods=(dcm.CutMix(alpha=1e6), dcm.CutMix(minmax=(0.1, 0.2)))
    )
    labels = np.arange(64, dtype=np.int32)[:, None]
    boxes = np.concatenate([b[2] for b in graphs.run(graphs.mix_pipeline(images, labels, cfg), 8)])
    small = boxes[:, 2:].max(1) < 8
    assert 150 < small.sum() < 362
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    assert len(np.unique(centres[~small], axis=0)) > 100


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": "cutmix"}, TypeError, "`methods` must be a tuple of CutMix, MixUp, ResizeMix"),
        ({"methods": (dcm.CutMix,)}, TypeError, "`methods` must be a tuple of CutMix, MixUp"),
        ({"methods": dcm.CutMix()}, TypeError, "`methods` must be a tuple of CutMix, MixUp"),
        ({"weights": (1.0,)}, ValueError, "`weights` must be left out without `methods`"),
        ({"methods": METHODS, "weights": (1.0,)}, ValueError, "`weights` must be 3 numbers that"),
        ({"methods": METHODS, "weights": (0.5, 0.5, 0.5)}, ValueError, "`weights` must be 3 num"),
        (
            {"methods": METHODS, "weights": (0.5, 0.7, -0.2)},
            ValueError,
            r"`weights` must be in",
        ),
        ({"methods": METHODS, "weights": "abc"}, TypeError, "`weights` must be a tuple of numbers"),
        ({"methods": METHODS, "mixup_alpha": 0.4}, ValueError, "`mixup_alpha` must be left out wi"),
        ({"methods": METHODS, "cutmix_alpha": 0.5}, ValueError, "`cutmix_alpha` must be left out"),
        ({"methods": METHODS, "box": "timm"}, ValueError, "`box` must be left out with `methods`"),
        ({"methods": METHODS, "minmax": (0.1, 0.2)}, ValueError, "`minmax` must be left out with"),
        ({"methods": METHODS, "switch_prob": 0.1}, ValueError, "`switch_prob` must be left out wi"),
    ],
)
def test_wrong_methods_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dcm.MixConfig(num_classes=2, **options)


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        (dcm.CutMix, {"alpha": 0}, ValueError, r"`alpha` must be in \[1e-6, 1e6\], got 0"),
        (dcm.CutMix, {"alpha": "1"}, TypeError, "`alpha` must be a number, got '1'"),
        (dcm.CutMix, {"box": "x"}, ValueError, "`box` must be one of"),
        (dcm.CutMix, {"correct_lam": 1}, TypeError, "`correct_lam` must be a bool, got 1"),
        (dcm.CutMix, {"minmax": (0.5, 0.2)}, ValueError, r"`minmax` must be \(lo, hi\)"),
        (dcm.CutMix, {"minmax": 0.5}, TypeError, "`minmax` must be 2 numbers"),
        (
            dcm.CutMix,
            {"minmax": (0.2, 0.5), "alpha": 0.5},
            ValueError,
            "`alpha` must be left out with `minmax`",
        ),
        (dcm.MixUp, {"alpha": -1}, ValueError, "`alpha` must be in"),
        (dcm.ResizeMix, {"scope": (0.0, 0.5)}, ValueError, r"`scope` must be \(lo, hi\) with 0 <"),
        (dcm.ResizeMix, {"scope": (0.5, 0.5)}, ValueError, r"`scope` must be \(lo, hi\)"),
        (dcm.ResizeMix, {"scope": 3}, TypeError, "`scope` must be 2 numbers"),
    ],
)
def test_wrong_options_of_a_method_are_refused(
    method: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        method(**options)


def test_a_configuration_with_methods_can_be_changed() -> None:
    cfg = dcm.MixConfig(methods=METHODS)
    assert cfg.weights == (1 / 3,) * 3
    assert dataclasses.replace(cfg, num_classes=7).methods == METHODS
    assert hash(cfg) == hash(dcm.MixConfig(methods=METHODS))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("known", [True, False])
def test_images_whose_layout_was_not_said(known: bool, device: str) -> None:
    """As fn.external_source gives them; those that are resized and the others are joined."""
    count, size = 32, (9, 12)
    images = graphs.distinct_images(np.random.default_rng(0), count, size)
    cfg = dcm.MixConfig(methods=METHODS)

    @pipeline_def(batch_size=count, num_threads=1, device_id=0 if device == "gpu" else None, seed=1)
    def pipe(layout: str | None) -> Any:
        nodes = graphs.feed(images, layout)
        nodes = nodes.gpu() if device == "gpu" else nodes
        return dcm.mix(nodes, None, cfg, size=size if known else None).images

    outputs = [graphs.run(pipe(layout))[0][0] for layout in (None, "HWC")]
    assert np.array_equal(*outputs)
    assert not np.array_equal(outputs[0], images)
