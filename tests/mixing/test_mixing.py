"""mix() against the NumPy reference, with injected draws, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
# Odd and even, taller and wider than high, a row, a column.
SIZES = [(7, 11), (16, 9), (5, 3), (33, 20), (8, 8), (1, 13), (21, 1), (12, 40)]


def random_draws(rng: np.random.Generator, count: int, size: tuple[int, int]) -> dict[str, Array]:
    """Draws that also hold every special case: lam 0, 1 and near them, centres at the borders."""
    lam = rng.beta(1, 1, count)
    special = rng.random(count) < 0.25
    lam[special] = rng.choice([0.0, 1.0, 1e-9, 1 - 1e-9, 0.5, 0.999], special.sum())
    centre = rng.integers(0, size, (count, 2))
    border = rng.random((count, 2)) < 0.2
    corners = np.where(rng.random((count, 2)) < 0.5, 0, np.array(size) - 1)
    centre = np.where(border, corners, centre)
    return {
        "lam": lam,
        "position": (centre + 0.5) / np.array(size),
        "partner": rng.integers(0, count, count, dtype=np.int32),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_and_targets_equal_the_reference(size: tuple[int, int], device: str) -> None:
    # 8 sizes x (250 + 999 + 2) samples = 10,008.
    kinds = set()
    for count in (250, 999, 2):
        rng = np.random.default_rng([*size, count])
        images = graphs.distinct_images(rng, count, size)
        labels = rng.integers(0, 10, (count, 1), dtype=np.int32)
        draws = random_draws(rng, count, size)
        pipe = graphs.mix_pipeline(
            images, labels, dcm.MixConfig(num_classes=10), draws=draws, device=device
        )
        ((out, lam, box, partner, target),) = graphs.run(pipe)
        assert np.array_equal(partner, draws["partner"])
        assert target.dtype == np.float32
        for i, j in enumerate(partner):
            centre = tuple(np.floor(draws["position"][i] * size).astype(int).tolist())
            expected = reference.paper_box(draws["lam"][i], centre, size)
            assert tuple(box[i]) == expected
            assert np.array_equal(out[i], reference.pasted(images[i], images[j], expected))
            shown = reference.original_pixels(expected, size)
            assert lam[i] == np.float32(shown / (size[0] * size[1]))
            row = reference.mixed_row(
                reference.one_hot(labels[i, 0], 10),
                reference.one_hot(labels[j, 0], 10),
                shown / (size[0] * size[1]),
            )
            assert np.abs(target[i] - row).max() < 1e-6
            y, x, h, w = expected
            kinds |= {"empty"} if h * w == 0 else set()
            kinds |= {"full"} if (h, w) == size else set()
            kinds |= {"top"} if y == 0 and h else set()
            kinds |= {"left"} if x == 0 and w else set()
            kinds |= {"bottom"} if y + h == size[0] and h else set()
            kinds |= {"right"} if x + w == size[1] and w else set()
        assert np.abs(target.sum(axis=1) - 1).max() < 1e-6
    # a row or a column of pixels can hold no box by the paper's rule: half a side is below 1
    assert kinds >= ({"empty"} if min(size) == 1 else {"empty", "top", "left", "bottom", "right"})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 0),
        (3, 4, 0, 0),
        (9, 14, 0, 0),
        (0, 14, 0, 0),
        (0, 0, 9, 14),
        (0, 0, 1, 1),
        (0, 13, 1, 1),
        (8, 0, 1, 1),
        (8, 13, 1, 1),
        (0, 3, 4, 5),
        (5, 3, 4, 5),
        (2, 0, 3, 7),
        (2, 7, 3, 7),
        (0, 0, 9, 1),
        (0, 0, 1, 14),
    ],
    ids=str,
)
def test_an_injected_box_is_pasted_as_it_is(box: reference.Box, device: str) -> None:
    size = (9, 14)
    images = graphs.distinct_images(np.random.default_rng(0), 2, size)
    lam = 1 - box[2] * box[3] / (9 * 14)
    draws = {
        "lam": np.array([lam, lam]),
        "partner": np.array([1, 0], np.int32),
        "box": np.array([box, box], np.int32),
    }
    pipe = graphs.mix_pipeline(
        images, np.array([0, 1]), dcm.MixConfig(num_classes=2), draws=draws, device=device
    )
    ((out, out_lam, out_box, _, target),) = graphs.run(pipe)
    for i in range(2):
        assert np.array_equal(out[i], reference.pasted(images[i], images[1 - i], box))
        # fn.multi_paste on a GPU pastes foreign pixels for an empty box that lies elsewhere
        assert tuple(out_box[i]) == (box if box[2] * box[3] else (9, 14, 0, 0))
    assert out_lam.tolist() == [np.float32(lam)] * 2
    assert np.abs(target - [[lam, 1 - lam], [1 - lam, lam]]).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "one element"])
@pytest.mark.parametrize("num_classes", [2, 21841])
def test_integer_labels(num_classes: int, shape: tuple[int, ...], dtype: type, device: str) -> None:
    rng = np.random.default_rng(3)
    images = graphs.distinct_images(rng, 6, (10, 12))
    labels = np.array([0, 1, num_classes - 1, 0, 1, 1], dtype).reshape(6, *shape)
    cfg = dcm.MixConfig(num_classes=num_classes, label_smoothing=0.1)
    ((_, lam, _, partner, target),) = graphs.run(
        graphs.mix_pipeline(images, labels, cfg, device=device)
    )
    for i, j in enumerate(partner):
        row = reference.mixed_row(
            reference.one_hot(int(labels[i].item()), num_classes, 0.1),
            reference.one_hot(int(labels[j].item()), num_classes, 0.1),
            lam[i],
        )
        assert np.abs(target[i] - row).max() < 1e-6
        assert abs(target[i].sum(dtype=np.float64) - 1) < 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_float_rows_are_mixed_as_given(device: str) -> None:
    rng = np.random.default_rng(4)
    images = graphs.distinct_images(rng, 8, (10, 12))
    rows = (rng.random((8, 5)) < 0.5).astype(np.float32)  # multi-label: sums are not 1
    rows[0] = [0.1, 0.2, 0.3, 0.4, 0.0]
    cfg = dcm.MixConfig(num_classes=5, labels="float")
    ((_, lam, _, partner, target),) = graphs.run(
        graphs.mix_pipeline(images, rows, cfg, device=device)
    )
    for i, j in enumerate(partner):
        assert np.abs(target[i] - reference.mixed_row(rows[i], rows[j], lam[i])).max() < 1e-6
    assert ((0 < lam) & (lam < 1)).any()


@pytest.mark.parametrize("device", DEVICES)
def test_equal_classes_add_up_to_one_entry(device: str) -> None:
    images = graphs.distinct_images(np.random.default_rng(5), 4, (10, 12))
    draws = {
        "lam": np.full(4, 0.37),
        "position": np.full((4, 2), 0.5),
        "partner": np.array([1, 0, 3, 2], np.int32),
    }
    cfg = dcm.MixConfig(num_classes=3)
    pipe = graphs.mix_pipeline(images, np.array([2, 2, 0, 0]), cfg, draws=draws, device=device)
    ((out, lam, _, _, target),) = graphs.run(pipe)
    assert np.abs(target - np.eye(3)[[2, 2, 0, 0]]).max() < 1e-6
    assert (0 < lam).all()
    assert (lam < 1).all()
    assert (out != images).any()


@pytest.mark.parametrize("device", DEVICES)
def test_pair_targets(device: str) -> None:
    images = graphs.distinct_images(np.random.default_rng(6), 16, (10, 12))
    labels = np.arange(16, dtype=np.int32)[:, None]
    cfg = dcm.MixConfig(num_classes=16, targets="pair")
    ((_, lam, _, partner, *pair),) = graphs.run(
        graphs.mix_pipeline(images, labels, cfg, device=device)
    )
    label_a, label_b, share = pair
    assert (label_a.dtype, label_b.dtype, share.dtype) == (np.int64, np.int64, np.float32)
    assert label_a.shape == label_b.shape == share.shape == (16,)
    assert np.array_equal(label_a, np.arange(16))
    assert np.array_equal(label_b, partner)
    assert np.array_equal(share, lam)


@pytest.mark.parametrize("device", DEVICES)
def test_without_order_the_index_says_who_went_where(device: str) -> None:
    images = graphs.distinct_images(np.random.default_rng(7), 33, (10, 12))
    labels = np.arange(33, dtype=np.int32)[:, None]
    cfg = dcm.MixConfig(num_classes=33)
    pipe = graphs.mix_pipeline(images, labels, cfg, keep_order=False, device=device)
    ((out, lam, box, partner, index, target),) = graphs.run(pipe)
    assert sorted(index) == list(range(33))
    assert (index != np.arange(33)).any()
    for k, (i, j) in enumerate(zip(index, partner, strict=True)):
        b = tuple(box[k].tolist())
        assert np.array_equal(out[k], reference.pasted(images[i], images[j], b))
        row = reference.mixed_row(np.eye(33)[i], np.eye(33)[j], lam[k])
        assert np.abs(target[k] - row).max() < 1e-6


def test_params_of_one_mix_repeat_it_on_other_data() -> None:
    rng = np.random.default_rng(8)
    images = graphs.distinct_images(rng, 16, (10, 12))
    masks = images[..., :1].copy()

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        labels = graphs.feed(np.arange(16, dtype=np.int32)[:, None])
        cfg = dcm.MixConfig(num_classes=16)
        mixed = dcm.mix(graphs.feed(images, "HWC"), labels, cfg)
        again = dcm.mix(graphs.feed(masks, "HWC"), labels, cfg, params=mixed.params)
        return mixed.images, again.images, mixed.targets, again.targets

    ((out, mask, target, target_again),) = graphs.run(pipe())
    assert np.array_equal(mask, out[..., :1])
    assert np.array_equal(target, target_again)


def test_correct_lam_off_keeps_the_drawn_lam_in_the_label() -> None:
    images = graphs.distinct_images(np.random.default_rng(9), 2, (10, 12))
    draws = {
        "lam": np.array([0.2, 0.7]),
        "position": np.zeros((2, 2)),
        "partner": np.array([1, 0], np.int32),
    }
    outs = {}
    for correct in (True, False):
        cfg = dcm.MixConfig(num_classes=2, correct_lam=correct)
        pipe = graphs.mix_pipeline(images, np.array([0, 1]), cfg, draws=draws)
        ((outs[correct], lam, _, _, target),) = graphs.run(pipe)
        if not correct:
            assert lam.tolist() == [np.float32(0.2), np.float32(0.7)]
            assert np.abs(target - [[0.2, 0.8], [0.3, 0.7]]).max() < 1e-6
        else:
            assert (lam > [0.7, 0.9]).all()  # only a quarter of the box is inside
    assert np.array_equal(outs[True], outs[False])


@pytest.mark.parametrize("keep_order", [True, False])
def test_prob_0_gives_the_originals_bit_for_bit(keep_order: bool) -> None:
    images = graphs.distinct_images(np.random.default_rng(10), 16, (10, 12))
    labels = np.arange(16)
    cfg = dcm.MixConfig(num_classes=16, prob=0.0, label_smoothing=0.2)
    pipe = graphs.mix_pipeline(images, labels, cfg, keep_order=keep_order)
    ((out, lam, box, _, *rest),) = graphs.run(pipe)
    index = np.arange(16) if keep_order else rest[0]
    assert np.array_equal(out, images[index])
    assert lam.tolist() == [1.0] * 16
    assert box.tolist() == [[10, 12, 0, 0]] * 16
    expected = np.stack([reference.one_hot(i, 16, 0.2) for i in index])
    assert np.abs(rest[-1] - expected).max() < 1e-6


def test_cutmix_is_mix_with_alpha() -> None:
    images = graphs.distinct_images(np.random.default_rng(11), 16, (10, 12))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=5)
    def pipe(by_name: bool, mix_seed: int | None = None) -> Any:
        options: dict[str, Any] = {"seed": mix_seed}
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        if by_name:
            options |= {"partner": "derangement"}
            return dcm.cutmix(pixels, labels, num_classes=16, alpha=0.3, **options).images
        cfg = dcm.MixConfig(num_classes=16, cutmix_alpha=0.3, partner="derangement")
        return dcm.mix(pixels, labels, cfg, **options).images

    ((by_name,),) = graphs.run(pipe(True))
    ((by_config,),) = graphs.run(pipe(False))
    ((other_seed,),) = graphs.run(pipe(True, mix_seed=6))
    assert np.array_equal(by_name, by_config)
    assert not np.array_equal(by_name, other_seed)


@pytest.mark.parametrize("mixed_by", [dcm.cutmix, dcm.mixup])
def test_float_labels_by_the_short_functions(mixed_by: Any) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=5)
    def pipe() -> Any:
        pixels = graphs.feed(np.zeros((16, 8, 9, 3), np.uint8), "HWC")
        rows = graphs.feed(np.eye(16, dtype=np.float32))
        return mixed_by(pixels, rows, num_classes=16, labels="float").targets

    ((targets,),) = graphs.run(pipe())
    assert np.abs(targets.sum(1) - 1).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("mode", ["elem", "batch"])
@pytest.mark.parametrize("alphas", [(1.0, 0.0), (0.0, 0.8), (1.0, 0.8)], ids=str)
def test_normalised_images_are_mixed_as_they_are(
    alphas: tuple[float, float], mode: Any, keep_order: bool, device: str
) -> None:
    # float32 in, float32 out: CutMix copies, MixUp is not rounded.
    rng = np.random.default_rng(5)
    images = rng.normal(size=(16, 9, 14, 3)).astype(np.float32)
    options = {"cutmix_alpha": alphas[0], "mixup_alpha": alphas[1], "mode": mode}
    cfg = dcm.MixConfig(num_classes=16, **options)
    pipe = graphs.mix_pipeline(
        images,
        np.arange(16),
        cfg,
        device=device,
        keep_order=keep_order,
        with_blended=True,
        dtype="float32",
    )
    blends = 0
    for out, lam, box, partner, *own, _, blended in graphs.run(pipe, 4):
        assert out.dtype == np.float32
        original = own[0] if own else np.arange(16)
        for i in range(16):
            a, b = images[original[i]], images[partner[i]]
            blends += int(blended[i])
            if blended[i]:
                assert np.abs(out[i] - (lam[i] * a + (1 - lam[i]) * b)).max() < 1e-6
            else:
                assert np.array_equal(out[i], reference.pasted(a, b, tuple(box[i])))
    assert (blends > 0) == (alphas[1] > 0)
    assert (blends < 64) == (alphas[0] > 0)


# What is refused


@pytest.mark.parametrize(
    ("images", "layout"),
    [
        (np.zeros((16, 8, 9, 3), np.float32), "HWC"),
        (np.zeros((16, 8, 9, 3), np.int16), "HWC"),
        (np.zeros((16, 3, 8, 9), np.uint8), "CHW"),
        (np.zeros((16, 3, 8, 19), np.uint8), None),
        (np.zeros((16, 8, 9), np.uint8), "HW"),
        (np.zeros((16, 8, 9), np.uint8), None),
        ([np.zeros((8 + i % 2, 9, 3), np.uint8) for i in range(16)], "HWC"),
    ],
    ids=["float", "int16", "CHW", "CHW unsaid", "HW", "HW unsaid", "several sizes"],
)
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("options", [{}, {"cutmix_alpha": 0.0, "mixup_alpha": 1.0}], ids=str)
def test_wrong_images_are_named(
    images: Any, layout: str | None, options: dict[str, Any], keep_order: bool
) -> None:
    cfg = dcm.MixConfig(num_classes=2, **options)
    labels = np.zeros(16, np.int32)
    pipe = graphs.mix_pipeline(images, labels, cfg, layout=layout, keep_order=keep_order)
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        pipe.run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`images` must be uint8, HWC and of one size")


@pytest.mark.parametrize(
    ("images", "layout"),
    [
        (np.zeros((16, 8, 9, 3), np.float32), "HWC"),
        (np.zeros((16, 8, 9, 3), np.int16), "HWC"),
        (np.zeros((16, 3, 8, 9), np.uint8), "CHW"),
        (np.zeros((16, 8, 9), np.uint8), "HW"),
        (np.zeros((16, 9, 8, 3), np.uint8), "HWC"),
        (np.zeros((16, 4, 18, 3), np.uint8), "HWC"),
        (np.zeros((16, 16, 9, 3), np.uint8), "HWC"),
        (np.zeros((16, 8, 9, 17), np.uint8), "HWC"),
        ([np.zeros((8 + i % 2, 9, 3), np.uint8) for i in range(16)], "HWC"),
    ],
    ids=["float", "int16", "CHW", "HW", "turned", "as many", "twice", "channels", "several sizes"],
)
@pytest.mark.parametrize("keep_order", [True, False])
def test_images_of_another_size_are_named(
    images: Any, layout: str | None, keep_order: bool
) -> None:
    cfg = dcm.MixConfig(num_classes=2)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=4)
    def pipe() -> Any:
        fed, labels = graphs.feed(images, layout), graphs.feed(np.zeros(16, np.int32))
        mixed = dcm.mix(fed, labels, cfg, size=(8, 9), keep_order=keep_order)
        return mixed.images, mixed.targets

    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        pipe().run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`images` must be uint8 (or of `dtype`), HWC and of the `size`")


@pytest.mark.parametrize("targets", ["soft", "pair"])
@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 5] * 8, np.int32),
        np.array([0, -1] * 8, np.int32),
        np.array([0, 2**40] * 8, np.int64),
        np.array([0, 2.5] * 8, np.float32),
        np.zeros((16, 5), np.float32),
        np.zeros((16, 0), np.int32),
        np.zeros((16, 2), np.int32),
    ],
    ids=["too large", "negative", "beyond int32", "float", "float rows", "empty", "two"],
)
def test_wrong_integer_labels_are_named(labels: Array, targets: Any) -> None:
    images = np.zeros((16, 8, 9, 3), np.uint8)
    pipe = graphs.mix_pipeline(images, labels, dcm.MixConfig(num_classes=5, targets=targets))
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        pipe.run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`labels` must be int32 or int64 scalars")


@pytest.mark.parametrize("labels", [np.zeros((16, 4), np.float32), np.zeros(16, np.int32)])
def test_wrong_float_labels_are_named(labels: Array) -> None:
    images = np.zeros((16, 8, 9, 3), np.uint8)
    pipe = graphs.mix_pipeline(images, labels, dcm.MixConfig(num_classes=5, labels="float"))
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        pipe.run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`labels` must be float32 rows of `num_classes`")


@pytest.mark.parametrize(
    "draws",
    [
        {"partner": np.full(16, 16, np.int32), "box": np.zeros((16, 4), np.int32)},
        {"partner": np.zeros(16, np.int32), "box": np.full((16, 4), 9, np.int32)},
        {
            "partner": np.zeros(16, np.int32),
            "box": np.zeros((16, 4), np.int32),
            "original": np.full(16, -1, np.int32),
        },
    ],
    ids=["partner", "box", "original"],
)
def test_wrong_params_are_named(draws: dict[str, Array]) -> None:
    images = np.zeros((16, 8, 9, 3), np.uint8)
    cfg, draws = dcm.MixConfig(num_classes=2), {"lam": np.ones(16), **draws}
    pipe = graphs.mix_pipeline(images, np.zeros(16, np.int32), cfg, draws=draws)
    with pytest.raises((RuntimeError, ValueError, TypeError)) as caught:
        pipe.run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`params` must hold a partner in the batch and a box inside the image")


def build(batch_size: int = 16, cfg: Any = None, **options: Any) -> None:
    @pipeline_def(batch_size=batch_size, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        images, labels = fn.zeros(shape=[8, 8, 3]), fn.zeros(shape=[1])
        given = {"images": images, "labels": labels, **options}
        return dcm.mix(cfg=cfg or dcm.MixConfig(num_classes=2), **given).images

    pipe()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 1}, ValueError, "`batch_size` must be at least 2 for mixing, got 1"),
        ({"cfg": dcm.MixConfig()}, ValueError, "`num_classes` must be given in MixConfig"),
        ({"cfg": {"num_classes": 2}}, TypeError, "`cfg` must be a MixConfig, got {'num_cl"),
        ({"images": np.zeros(3)}, TypeError, "`images` must be a DataNode of a pipeline, got nda"),
        ({"labels": 3}, TypeError, "`labels` must be a DataNode of a pipeline, got int"),
        ({"params": "x"}, TypeError, "`params` must be MixParams with a box"),
        ({"keep_order": 1}, TypeError, "`keep_order` must be a bool, got 1"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
        ({"seed": 1.5}, TypeError, "`seed` must be an int, got 1.5"),
        ({"dtype": "float16"}, ValueError, '`dtype` must be one of "uint8", "float32"'),
    ],
)
def test_what_is_known_at_build_is_refused_at_build(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(**options)


def test_labels_on_the_gpu_are_refused_at_build() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=0)
    def pipe() -> Any:
        images, labels = fn.zeros(shape=[8, 8, 3]), fn.zeros(shape=[1]).gpu()
        return dcm.mix(images, labels, dcm.MixConfig(num_classes=2)).images

    with pytest.raises(ValueError, match='`labels` must be on the CPU, got device "gpu"'):
        pipe()


def test_a_small_batch_is_warned_of_once() -> None:
    with pytest.warns(UserWarning, match="Mixing in a batch of 15") as caught:
        build(batch_size=15)
    assert len(caught) == 1
    build(batch_size=16)


def test_mix_outside_a_pipeline_is_refused() -> None:
    with pytest.raises(RuntimeError, match="inside a @pipeline_def function"):
        dcm.mix(fn.zeros(shape=[8, 8, 3]), fn.zeros(shape=[1]), dcm.MixConfig(num_classes=2))


@pytest.mark.parametrize("size", [None, (8, 9)])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [
        *((kind, "uint8") for kind in (np.float32, np.float16, np.int16, np.float64)),
        *((kind, "float32") for kind in (np.uint8, np.float16, np.float64)),
    ],
)
def test_images_of_another_type_are_refused(
    wrong: Any, dtype: Any, size: tuple[int, int] | None, mixup: float
) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe() -> Any:
        pixels = np.ones((8, 9, 3), wrong)
        images = fn.external_source(source=lambda: [pixels] * 16, batch=True, layout="HWC")
        labels = fn.external_source(source=lambda: [np.int32(1)] * 16, batch=True)
        cfg = dcm.MixConfig(num_classes=5, mixup_alpha=mixup)
        mixed = dcm.mix(images, labels, cfg, size=size, dtype=dtype)
        return mixed.images, mixed.targets

    with pytest.raises(RuntimeError, match="`images` must be uint8"):
        pipe().run()
