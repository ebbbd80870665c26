"""Numbers at the edge of what is allowed: no NaN, no wrong row, the right pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types

import dali_cutmix as dcm
from dali_cutmix import losses
from tests import reference
from tests.mixing.test_methods import check_batch
from tests.support import graphs

EDGE_SIZES = [(1, 1), (1, 9), (9, 1), (8, 8), (2, 3), (1, 4096)]
METHODS: dict[str, dict[str, Any]] = {
    "cutmix": {},
    "mixup": {"cutmix_alpha": 0.0, "mixup_alpha": 1.0},
    "both": {"mixup_alpha": 1.0},
    "timm": {"box": "timm", "mode": "batch", "partner": "flip"},
    "torchvision": {"box": "torchvision", "partner": "roll"},
    "inside": {"box": "inside", "partner": "derangement"},
    "minmax": {"minmax": (0.0, 1.0)},
    "narrow minmax": {"minmax": (0.5, 0.5 + 1e-9)},
    "drawn lam": {"correct_lam": False},
    "pair": {"mode": "pair", "partner": "flip"},
}


def mixed(cfg: dcm.MixConfig, size: tuple[int, int], count: int = 64, seed: int = 3) -> Any:
    """Checks every pixel and every row of a batch; returns lam."""
    rng = np.random.default_rng([*size, count])
    images = graphs.distinct_images(rng, count, size)
    labels = rng.integers(0, cfg.num_classes or 1, count)
    pipe = graphs.mix_pipeline(images, labels, cfg, seed=seed, with_blended=True)
    (outputs,) = graphs.run(pipe)
    assert all(np.isfinite(out.astype(np.float64)).all() for out in outputs)
    found = check_batch(cfg, images, labels, outputs)
    assert ((found["lam"] >= 0) & (found["lam"] <= 1)).all()
    return found["lam"]


@pytest.mark.parametrize("size", EDGE_SIZES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_images_of_few_pixels(method: str, size: tuple[int, int]) -> None:
    # 64 samples each; check_batch compares every pixel, every row and every lam.
    mixed(dcm.MixConfig(num_classes=7, **METHODS[method]), size)


@pytest.mark.parametrize("method", ["cutmix", "mixup", "both", "timm", "inside", "drawn lam"])
@pytest.mark.parametrize("alpha", [1e-6, 1e6])
def test_alpha_at_its_bounds(alpha: float, method: str) -> None:
    # 256 samples. Beta(a, a) has its mass at 0 and 1 for a = 1e-6 (within 1e-3 of them but for
    # 1e-5 of the draws), and around 1/2 with a deviation of 3.5e-4 for a = 1e6.
    options = dict(METHODS[method])
    on = [n for n in ("cutmix_alpha", "mixup_alpha") if options.get(n, n == "cutmix_alpha")]
    cfg = dcm.MixConfig(num_classes=9, **{**options, **dict.fromkeys(on, alpha)})
    mixed(cfg, (20, 30), count=256)
    (drawn, *_) = graphs.run(graphs.sample_pipeline(cfg, 256, 5))[0]
    if alpha < 1:
        assert np.minimum(drawn, 1 - drawn).max() < 1e-3
        assert cfg.mode == "batch" or 64 < (drawn > 0.5).sum() < 192
    else:
        assert np.abs(drawn - 0.5).max() < 0.002


@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("box", ["paper", "timm", "torchvision", "inside"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (7, 11)], ids=str)
def test_lam_of_exactly_0_and_1(size: tuple[int, int], box: Any, lam: float) -> None:
    count = 32
    rng = np.random.default_rng(0)
    images, labels = graphs.distinct_images(rng, count, size), np.arange(count)
    draws = {
        "lam": np.full(count, lam),
        "partner": np.roll(np.arange(count), 1).astype(np.int32),
        "position": rng.random((count, 2)),
    }
    cfg = dcm.MixConfig(num_classes=count, box=box)
    ((out, final, boxes, _, rows),) = graphs.run(
        graphs.mix_pipeline(images, labels, cfg, draws=draws)
    )
    if lam == 1:
        assert np.array_equal(out, images)
        assert np.array_equal(rows, np.eye(count, dtype=np.float32))
        assert boxes.tolist() == [[*size, 0, 0]] * count
    elif box == "inside":  # the whole image
        assert np.array_equal(out, np.roll(images, 1, axis=0))
        assert np.array_equal(rows, np.roll(np.eye(count, dtype=np.float32), 1, axis=0))
    assert np.abs(rows.sum(1) - 1).max() < 1e-6
    share = 1 - boxes[:, 2:].prod(1) / (size[0] * size[1])
    assert np.array_equal(final, share.astype(np.float32))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_mixup_with_lam_of_exactly_0_and_1(lam: float) -> None:
    images = graphs.distinct_images(np.random.default_rng(0), 16, (5, 4))
    draws = {"lam": np.full(16, lam), "partner": np.arange(16, dtype=np.int32)[::-1].copy()}
    cfg = dcm.MixConfig(num_classes=16, cutmix_alpha=0.0, mixup_alpha=1.0)
    ((out, _, _, _, rows),) = graphs.run(
        graphs.mix_pipeline(images, np.arange(16), cfg, draws=draws)
    )
    expected = images if lam else images[::-1]
    assert np.array_equal(out, expected)
    assert np.array_equal(rows, np.eye(16, dtype=np.float32)[:: 1 if lam else -1])


@pytest.mark.parametrize("num_classes", [1, 2, 100_000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_one_class_and_a_hundred_thousand(num_classes: int, smoothing: float) -> None:
    # The rows are compared in float64 with the definition; the last class is among the labels.
    rng = np.random.default_rng(0)
    images = graphs.distinct_images(rng, 6, (8, 8))
    labels = np.minimum([0, num_classes - 1, 0, 7, num_classes // 2, 1], num_classes - 1)
    cfg = dcm.MixConfig(num_classes=num_classes, label_smoothing=smoothing)
    ((_, lam, _, partner, rows),) = graphs.run(graphs.mix_pipeline(images, labels, cfg))
    assert rows.shape == (6, num_classes)
    assert np.abs(rows.sum(1, dtype=np.float64) - 1).max() < 1e-5
    for i, j in enumerate(partner):
        own, other = (reference.one_hot(int(labels[k]), num_classes, smoothing) for k in (i, j))
        assert np.abs(rows[i] - reference.mixed_row(own, other, lam[i])).max() < 1e-6


def test_a_label_beyond_a_hundred_thousand_classes_is_refused() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    cfg = dcm.MixConfig(num_classes=100_000, targets="pair")
    labels = np.array([0, 99_999, 100_000, 1])
    with pytest.raises(RuntimeError, match="`labels` must be int32 or int64"):
        graphs.run(graphs.mix_pipeline(images, labels, cfg))
    labels[2] = 99_999
    ((*_, label_a, label_b, _),) = graphs.run(graphs.mix_pipeline(images, labels, cfg))
    assert label_a.tolist() == labels.tolist()
    assert sorted(label_b) == sorted(label_a)


@pytest.mark.parametrize("method", ["cutmix", "both", "inside", "pair", "minmax"])
def test_a_batch_of_2(method: str) -> None:
    for seed in range(8):
        mixed(dcm.MixConfig(num_classes=2, **METHODS[method]), (7, 5), count=2, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"partner": "flip"}, {"partner": "roll"}], ids=str)
@pytest.mark.parametrize("method", ["cutmix", "mixup", "both"])
def test_a_batch_of_4096(method: str, options: dict[str, Any]) -> None:
    # The labels are the places, so that pairs are seen in the targets.
    count = 4096
    images = np.arange(count, dtype=np.uint32).astype(">u4").view(np.uint8)[:, None]
    images = np.repeat(images.reshape(count, 1, 1, 4), 6, axis=2)  # pixels that tell the place
    cfg = dcm.MixConfig(num_classes=count, targets="pair", **METHODS[method], **options)
    pipe = graphs.mix_pipeline(images, np.arange(count), cfg, with_blended=True)
    ((out, lam, box, partner, label_a, label_b, share, blended),) = graphs.run(pipe)
    assert np.array_equal(label_a, np.arange(count))
    assert np.array_equal(label_b, partner)
    assert sorted(partner) == list(range(count))
    assert np.array_equal(share, lam)
    if options:
        expected = np.arange(count)[::-1] if options["partner"] == "flip" else label_a - 1
        assert np.array_equal(partner, expected % count)
    column = np.arange(6)
    inside = (column >= box[:, 1:2]) & (column < box[:, 1:2] + box[:, 3:])
    inside &= (box[:, 2:3] > 0) & ~np.broadcast_to(blended, count).astype(bool)[:, None]
    cut = np.where(inside[:, None, :, None], images[partner], images)
    exact = lam.astype(np.float64)[:, None, None, None]
    blend = np.floor(exact * images + (1 - exact) * images[partner] + 0.5)
    is_blend = np.broadcast_to(blended, count).astype(bool)[:, None, None, None]
    # A tie of a blend may fall either way in float32.
    assert np.abs(out - np.where(is_blend, blend, cut)).max() <= is_blend.any()
    assert np.array_equal(out[~is_blend[:, 0, 0, 0]], cut[~is_blend[:, 0, 0, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"cutmix_alpha": 0.0, "mixup_alpha": 1.0}], ids=str)
def test_images_of_4096_by_4096(options: dict[str, Any]) -> None:
    # 2 images of 16.8 million pixels, 1 channel: areas beyond 2^24, where float32 counts no more.
    side = 4096
    cfg = dcm.MixConfig(num_classes=2, partner="flip", **options)

    @pipeline_def(batch_size=2, num_threads=2, device_id=None, seed=4, prefetch_queue_depth=1)
    def pipe() -> Any:
        labels = graphs.feed(np.arange(2))
        value = fn.cast(labels * 200 + 20, dtype=types.UINT8)
        images = fn.reshape(
            fn.constant(idata=[0], shape=[side, side, 1], dtype=types.UINT8) + value, layout="HWC"
        )
        result = dcm.mix(fn.cast(images, dtype=types.UINT8), labels, cfg)
        return result.images, result.targets, result.params.lam, result.params.box

    with pytest.warns(UserWarning, match="Mixing in a batch of 2"):
        built = pipe()
    ((out, rows, lam, box),) = graphs.run(built)
    for i, own in enumerate((20, 220)):
        other = 240 - own
        if options:
            blend = np.float32(lam[i]) * own + (1 - np.float32(lam[i])) * other
            assert np.abs(out[i].astype(float) - blend).max() <= 0.501
        else:
            y, x, h, w = box[i]
            expected = np.full((side, side, 1), own, np.uint8)
            expected[y : y + h, x : x + w] = other
            assert h * w > 0
            assert np.array_equal(out[i], expected)
            assert lam[i] == np.float32(1 - int(h) * int(w) / side**2)
        assert (
            np.abs(rows[i] - ([lam[i], 1 - lam[i]] if i == 0 else [1 - lam[i], lam[i]])).max()
            < 1e-6
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("classes", [1, 100_000])
def test_losses_at_the_edge(classes: int, lam: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(2, classes, dtype=dtype)
    logits[0, -1] = 100.0
    last = torch.full((2,), classes - 1)
    pair = (last, torch.zeros(2, dtype=torch.int64), torch.full((2,), lam))
    for function in (losses.cross_entropy, losses.binary_cross_entropy, losses.mixed_accuracy):
        value = function(logits, pair)
        assert value.isfinite()
        assert value >= 0
