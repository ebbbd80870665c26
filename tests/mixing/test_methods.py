"""Box rules, MixUp, switching and pairing against the reference, over the whole option space."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import fn, pipeline_def, types

import dali_cutmix as dcm
from dali_cutmix._dali import merge, split
from dali_cutmix._rules import explain
from dali_cutmix.mixing.followers import images as image_follower
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
SIZES = [(7, 11), (33, 20), (8, 8), (12, 40), (3, 100)]


def centres(position: Array, size: tuple[int, int]) -> tuple[int, int]:
    y, x = np.floor(position * size).astype(int).tolist()
    return y, x


def expected_box(
    cfg: dcm.MixConfig, lam: float, position: Array, sides: Array | None, size: tuple[int, int]
) -> reference.Box:
    if cfg.minmax is not None:
        assert sides is not None
        return reference.minmax_box(tuple(sides), tuple(position), cfg.minmax, size)
    if cfg.box == "inside":
        return reference.inside_box(lam, tuple(position), size)
    rule = reference.timm_box if cfg.box == "timm" else reference.paper_box
    return rule(lam, centres(position, size), size)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"box": "timm"},
        {"box": "torchvision"},
        {"box": "inside"},
        {"minmax": (0.2, 0.8)},
        {"minmax": (0.0, 1.0)},
        {"minmax": (1e-157, 0.4)},  # less than float32 has
        {"minmax": (0.29, 0.58)},  # int(0.29 * 100) is 28, in float32 it would be 29
    ],
    ids=str,
)
def test_box_rules_equal_the_reference(
    options: dict[str, Any], size: tuple[int, int], device: str
) -> None:
    # 5 sizes x 6 rules x 512 samples.
    count, rng = 512, np.random.default_rng(list(size))
    cfg = dcm.MixConfig(num_classes=10, **options)
    images = graphs.distinct_images(rng, count, size)
    labels = rng.integers(0, 10, count, dtype=np.int32)
    draws = {
        "lam": rng.choice([0.0, 1.0, 0.5, *rng.random(20)], count),
        "partner": rng.integers(0, count, count, dtype=np.int32),
        "position": rng.choice([0.0, 1 - 1e-12, *rng.random(20)], (count, 2)),
    }
    if cfg.minmax is not None:
        draws["lam"] = np.zeros(count)
        draws["sides"] = rng.random((count, 2))
    pipe = graphs.mix_pipeline(images, labels, cfg, draws=draws, device=device)
    ((out, lam, box, partner, target),) = graphs.run(pipe)
    for i, j in enumerate(partner):
        sides = draws["sides"][i] if cfg.minmax is not None else None
        expected = expected_box(cfg, draws["lam"][i], draws["position"][i], sides, size)
        assert tuple(box[i]) == expected
        assert np.array_equal(out[i], reference.pasted(images[i], images[j], expected))
        shown = reference.original_pixels(expected, size)
        assert lam[i] == np.float32(shown / (size[0] * size[1]))
        row = reference.mixed_row(np.eye(10)[labels[i]], np.eye(10)[labels[j]], lam[i])
        assert np.abs(target[i] - row).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mixup_equals_the_reference(size: tuple[int, int], device: str) -> None:
    count, rng = 256, np.random.default_rng(list(size))
    images = graphs.distinct_images(rng, count, size)
    labels = rng.integers(0, 10, count, dtype=np.int32)
    lam = rng.choice([0.0, 1.0, 0.5, 0.25, *rng.random(20)], count)  # 0.5 makes halves
    draws = {"lam": lam, "partner": rng.integers(0, count, count, dtype=np.int32)}
    cfg = dcm.MixConfig(num_classes=10, mixup_alpha=0.2, cutmix_alpha=0.0)
    pipe = graphs.mix_pipeline(images, labels, cfg, draws=draws, device=device)
    ((out, out_lam, box, partner, target),) = graphs.run(pipe)
    assert np.array_equal(out_lam, lam.astype(np.float32))
    assert box.tolist() == [[*size, 0, 0]] * count
    for i, j in enumerate(partner):
        graphs.assert_blended(out[i], images[i], images[j], lam[i])
        row = reference.mixed_row(np.eye(10)[labels[i]], np.eye(10)[labels[j]], lam[i])
        assert np.abs(target[i] - row).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_mixup_rounds_ten_million_values_as_the_reference(device: str) -> None:
    count, size, rng = 66, (224, 233), np.random.default_rng(8)  # 10.3 million
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    lam = np.array([0.0, 0.5, 1.0, 0.25, *rng.beta(0.8, 0.8, count - 4)])
    draws = {"lam": lam, "partner": rng.permutation(count).astype(np.int32)}
    cfg = dcm.MixConfig(num_classes=2, mixup_alpha=0.2, cutmix_alpha=0.0)
    pipe = graphs.mix_pipeline(images, np.zeros(count, int), cfg, draws=draws, device=device)
    ((out, *_),) = graphs.run(pipe)
    for i, j in enumerate(draws["partner"]):
        graphs.assert_blended(out[i], images[i], images[j], lam[i])


def check_batch(
    cfg: dcm.MixConfig, images: Array, labels: Array, outputs: list[Array], keep_order: bool = True
) -> dict[str, Array]:
    """Checks pixels and targets of one batch against its parameters; returns who was what."""
    out, lam, box, partner, *rest, blended = outputs
    count, size = len(images), images.shape[1:3]
    original = np.arange(count) if keep_order else rest.pop(0)
    methods = []
    for k, (i, j) in enumerate(zip(original, partner, strict=True)):
        y, x, h, w = box[k].tolist()
        expected = reference.pasted(images[i], images[j], (y, x, h, w))
        if blended[k]:
            assert (y, x, h, w) == (*size, 0, 0)
            graphs.assert_blended(out[k], images[i], images[j], lam[k])
            methods.append("blended")
        elif h * w:
            methods.append("cut")
        else:
            assert (y, x, h, w) == (*size, 0, 0)
            assert np.array_equal(expected, images[i])
            methods.append("plain")
        if cfg.correct_lam and not blended[k]:
            share = reference.original_pixels((y, x, h, w), size) / (size[0] * size[1])
            assert lam[k] == np.float32(share)
        assert blended[k] or np.array_equal(out[k], expected), (k, methods[-1])
        if cfg.targets == "pair":
            label_a, label_b, share = rest
            assert (label_a[k], label_b[k], share[k]) == (labels[i], labels[j], lam[k])
        else:
            if cfg.labels == "float":
                rows = labels[i], labels[j]
            else:
                rows = tuple(
                    reference.one_hot(int(labels[m]), cfg.num_classes, cfg.label_smoothing)
                    for m in (i, j)
                )
                assert abs(rest[0][k].sum(dtype=np.float64) - 1) < 1e-6
            assert np.abs(rest[0][k] - reference.mixed_row(*rows, lam[k])).max() < 1e-6
    return {
        "methods": np.array(methods),
        "original": original,
        "partner": partner,
        "lam": lam,
        "box": box,
        "labels": labels,
    }


def check_sharing(cfg: dcm.MixConfig, found: dict[str, Array]) -> None:
    """What `mode` and `partner` promise."""
    count = len(found["lam"])
    drawn = np.column_stack([found["lam"], found["box"]])
    if cfg.mode == "batch":
        with_partner = drawn[found["partner"] != found["original"]] if cfg.grouped else drawn
        assert (with_partner == with_partner[:1]).all()
        assert cfg.grouped or len(set(found["methods"])) == 1
    elif cfg.mode == "pair":
        assert (drawn == drawn[::-1]).all()
    original, partner = found["original"], found["partner"]
    assert sorted(original) == list(range(count))
    assert cfg.partner == "other" or sorted(partner) == list(range(count))
    if cfg.grouped:
        same = found["labels"][original] == found["labels"][partner]
        assert (same if cfg.partner == "same" else ~same | (original == partner)).all()
        assert (found["lam"][original == partner] == 1).all()
    if cfg.partner == "flip":
        assert np.array_equal(partner, original[::-1])
    elif cfg.partner == "roll":
        assert np.array_equal(partner, np.roll(original, 1))
    elif cfg.partner == "derangement":
        assert (partner != original).all()


configs = st.builds(
    dcm.MixConfig,
    num_classes=st.just(8),
    cutmix_alpha=st.sampled_from([0.2, 1.0]),
    mixup_alpha=st.sampled_from([0.0, 0.4]),
    prob=st.sampled_from([0.0, 0.5, 1.0]),
    switch_prob=st.sampled_from([0.0, 0.5, 1.0]),
    mode=st.sampled_from(["elem", "batch"]),
    correct_lam=st.booleans(),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    box=st.sampled_from(["paper", "timm", "torchvision", "inside"]),
    partner=st.sampled_from(["permutation", "derangement", "flip", "roll", "same", "other"]),
)


def option_space() -> st.SearchStrategy[dcm.MixConfig]:
    def changed(**values: Any) -> Any:
        return lambda cfg: dataclasses.replace(cfg, **values)

    plain = configs
    pairs = configs.map(changed(mode="pair", partner="flip"))
    minmax = configs.map(
        changed(minmax=(0.2, 0.9), cutmix_alpha=1.0, box="paper", correct_lam=True)
    )
    mixup = configs.map(changed(cutmix_alpha=0.0, mixup_alpha=0.4))
    targets = configs.map(changed(targets="pair", label_smoothing=0.0))
    rows = configs.filter(lambda cfg: not cfg.grouped)
    rows = rows.map(changed(labels="float", label_smoothing=0.0))
    return st.one_of(plain, pairs, minmax, mixup, targets, rows)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(
    cfg=option_space(),
    count=st.sampled_from([2, 3, 8, 9]),
    size=st.sampled_from([(6, 9), (9, 6), (1, 5), (8, 8)]),
    seed=st.integers(0, 2**31),
    keep_order=st.booleans(),
    known=st.booleans(),
)
def test_every_configuration_keeps_its_promises(
    cfg: dcm.MixConfig, count: int, size: tuple[int, int], seed: int, keep_order: bool, known: bool
) -> None:
    # 1,000 configurations: pixels outside the box are the sample's, inside the partner's; unmixed
    # samples are bit-identical; rows sum to 1; lam is the counted share; pairs are as promised.
    rng = np.random.default_rng(seed)
    images = graphs.distinct_images(rng, count, size)
    labels = rng.integers(0, 8, count)
    if cfg.labels == "float":
        labels = (rng.random((count, 8)) < 0.4).astype(np.float32)
    fed = labels.astype(np.int32)[:, None] if known and cfg.labels == "int" else labels
    options: dict[str, Any] = {"seed": seed, "keep_order": keep_order, "known": known}
    with graphs.untraced():
        pipe = graphs.mix_pipeline(images, fed, cfg, with_blended=True, **options)
        (outputs,) = graphs.run(pipe)
    shuffled = len(outputs) - (3 if cfg.targets == "pair" else 1) == 6
    assert shuffled == (not keep_order and cfg.mixup_alpha == 0)
    found = check_batch(cfg, images, labels, outputs, keep_order=not shuffled)
    check_sharing(cfg, found)
    methods = set(found["methods"])
    if cfg.prob == 0:
        assert "cut" not in methods
        assert (found["lam"] == 1).all()
    if not cfg.mixup_alpha or (cfg.cutmix_alpha and cfg.switch_prob == 1):
        assert "blended" not in methods
    if not cfg.cutmix_alpha or (cfg.mixup_alpha and cfg.switch_prob == 0):
        assert "cut" not in methods


@pytest.mark.gpu
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("mode", ["elem", "batch", "pair"])
@pytest.mark.parametrize("options", [{}, {"minmax": (0.2, 0.9)}, {"cutmix_alpha": 0.0}], ids=str)
def test_both_methods_on_the_gpu_equal_the_cpu(
    mode: Any, options: dict[str, Any], keep_order: bool
) -> None:
    rng = np.random.default_rng(0)
    images = graphs.distinct_images(rng, 33, (24, 31))
    cfg = dcm.MixConfig(
        num_classes=33, mixup_alpha=0.4, prob=0.8, mode=mode, partner="flip", **options
    )
    outs = [
        graphs.run(
            graphs.mix_pipeline(images, np.arange(33), cfg, device=d, keep_order=keep_order), 8
        )
        for d in ("cpu", "gpu")
    ]
    for (cpu_images, *cpu), (gpu_images, *gpu) in zip(*outs, strict=True):
        for a, b in zip(cpu, gpu, strict=True):
            assert np.abs(a.astype(float) - b).max() < 1e-6
        lam, _, partner, *own = cpu[:-1]
        original = own[0] if own else np.arange(33)  # MixUp alone keeps the order
        for k, (i, j) in enumerate(zip(original, partner, strict=True)):
            if not np.array_equal(gpu_images[k], cpu_images[k]):  # then near halves alone
                graphs.assert_blended(gpu_images[k], images[i], images[j], lam[k])


@pytest.mark.parametrize("mode", ["elem", "batch", "pair"])
def test_switching_has_the_asked_probabilities(mode: Any) -> None:
    # prob 0.6, of these CutMix 0.3: 5 standard deviations, 400 batches of 33.
    cfg = dcm.MixConfig(
        num_classes=2, mixup_alpha=1.0, prob=0.6, switch_prob=0.3, mode=mode, partner="flip"
    )
    batches = graphs.run(graphs.sample_pipeline(cfg, 33, 9), 400)
    lam, blended = (np.stack([batch[i] for batch in batches]) for i in (0, 3))
    kinds = {"blended": blended, "cut": ~blended & (lam < 1), "plain": lam == 1}
    independent = {"elem": 33, "batch": 1, "pair": 17}[mode]
    for kind, share in {"blended": 0.42, "cut": 0.18, "plain": 0.4}.items():
        drawn = kinds[kind][:, :independent]
        tolerance = 5 * np.sqrt(share * (1 - share) / drawn.size)
        assert abs(drawn.mean() - share) < tolerance, kind


@pytest.mark.parametrize("mode", ["elem", "batch"])
def test_only_blended_samples_pay_for_it(mode: Any) -> None:
    images = graphs.distinct_images(np.random.default_rng(0), 16, (8, 9))
    cfg = dcm.MixConfig(num_classes=2, mixup_alpha=1.0, switch_prob=0.4, mode=mode)

    @pipeline_def(batch_size=16, num_threads=2, device_id=None, seed=1)
    def pipe() -> Any:
        filtered = []

        def spy(images: Any, *rest: Any) -> Any:
            filtered.append(images)
            return blend(images, *rest)

        blend = image_follower._blended
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(image_follower, "_blended", spy)
            mixed = dcm.mix(graphs.feed(images, "HWC"), graphs.feed(np.zeros(16, int)), cfg)
        blended = mixed.params.blended
        arrived = filtered[0].shape()[0] == 8  # a sample that gets there
        others = split(fn.zeros(shape=[], dtype=types.BOOL), blended)[1]
        return mixed.images, blended, merge(arrived, others, blended)

    counts = set()
    for _, blended, arrived in graphs.run(pipe(), 6):
        assert np.array_equal(blended, arrived)
        counts.add(int(blended.sum()))
    assert counts == {0, 16} if mode == "batch" else len(counts) > 1


# Partners from a second batch


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("options", [{}, {"cutmix_alpha": 0.0, "mixup_alpha": 0.4}], ids=str)
def test_partners_of_a_second_batch(options: dict[str, Any], count: int, device: str) -> None:
    rng = np.random.default_rng(1)
    images = graphs.distinct_images(rng, count, (10, 14))
    others = 255 - images
    labels, other_labels = np.arange(count), np.arange(count) + 5
    cfg = dcm.MixConfig(num_classes=10, **options)
    for seed in range(4):

        @pipeline_def(
            batch_size=count,
            num_threads=1,
            device_id=0 if device == "gpu" else None,
            seed=seed,
        )
        def pipe() -> Any:
            a, b = graphs.feed(images, "HWC"), graphs.feed(others, "HWC")
            if device == "gpu":
                a, b = a.gpu(), b.gpu()
            partners = (b, graphs.feed(other_labels))
            mixed = dcm.mix(a, graphs.feed(labels), cfg, partners=partners)
            return mixed.images, mixed.params.lam, mixed.params.box, mixed.targets

        ((out, lam, box, target),) = graphs.run(pipe())
        for i in range(count):
            if options:
                graphs.assert_blended(out[i], images[i], others[i], lam[i])
            else:
                expected = reference.pasted(images[i], others[i], tuple(box[i].tolist()))
                assert np.array_equal(out[i], expected)
            row = reference.mixed_row(np.eye(10)[i], np.eye(10)[i + 5], lam[i])
            assert np.abs(target[i] - row).max() < 1e-6


def test_wrong_partners_are_refused() -> None:
    @pipeline_def(batch_size=2, num_threads=1, device_id=None)
    def pipe(partners: Any, cfg: dcm.MixConfig) -> Any:
        images, labels = fn.zeros(shape=[8, 8, 3]), fn.zeros(shape=[1])
        given = (images, labels) if partners == "own" else partners
        return dcm.mix(images, labels, cfg, partners=given).images

    plain, pair = (
        dcm.MixConfig(num_classes=2),
        dcm.MixConfig(num_classes=2, mode="pair", partner="flip"),
    )
    with pytest.raises(TypeError, match=r"`partners` must be \(images, labels\), got 3"):
        pipe(3, plain)
    with pytest.raises(TypeError, match="`partners` must be a DataNode of a pipeline, got int"):
        pipe((1, 2), plain)
    with pytest.raises(ValueError, match='`mode` must be "elem" or "batch" with `partners`'):
        pipe("own", pair)


def test_in_a_pipeline_with_conditionals() -> None:
    images = graphs.distinct_images(np.random.default_rng(4), 16, (10, 14))
    cfg = dcm.MixConfig(num_classes=16, mixup_alpha=0.4, prob=0.8)

    def body() -> Any:
        pixels = graphs.feed(images, "HWC")
        mixed = dcm.mix(pixels, graphs.feed(np.arange(16)), cfg)
        return mixed.images, mixed.targets

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def plain() -> Any:
        return body()

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1, enable_conditionals=True)
    def conditional() -> Any:
        out, targets = body()
        if fn.random.coin_flip(dtype=types.BOOL, seed=2):
            out = fn.flip(out)
        return out, targets

    for (a, row), (b, same) in zip(
        *(graphs.run(p(), 3) for p in (plain, conditional)), strict=True
    ):
        assert np.array_equal(row, same)
        flipped = [np.array_equal(x, y[:, ::-1]) for x, y in zip(a, b, strict=True)]
        kept = [np.array_equal(x, y) for x, y in zip(a, b, strict=True)]
        assert all(i != k for i, k in zip(flipped, kept, strict=True))
        assert any(flipped)
        assert any(kept)


# Repeating a mix


@pytest.mark.parametrize(
    "options",
    [{}, {"mixup_alpha": 0.4}, {"mixup_alpha": 0.4, "cutmix_alpha": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["elem", "batch"])
def test_params_repeat_a_mix_whatever_the_configuration(options: dict[str, Any], mode: Any) -> None:
    images = graphs.distinct_images(np.random.default_rng(5), 16, (10, 14))
    cfg = dcm.MixConfig(num_classes=16, mode=mode, **options)
    others = [
        dcm.MixConfig(num_classes=16),
        dcm.MixConfig(num_classes=16, mixup_alpha=1.0, mode="batch"),
        dcm.MixConfig(num_classes=16, mixup_alpha=1.0, cutmix_alpha=0.0),
    ]

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=7)
    def pipe() -> Any:
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        first = dcm.mix(pixels, labels, cfg, keep_order=False)
        again = [dcm.mix(pixels, labels, other, params=first.params) for other in others]
        return first.images, first.targets, *(x for m in again for x in (m.images, m.targets))

    for out, target, *repeated in graphs.run(pipe(), 6):
        for k in range(0, len(repeated), 2):
            assert np.array_equal(out, repeated[k])
            assert np.array_equal(target, repeated[k + 1])


def test_params_that_do_not_fit_are_refused() -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=7)
    def pipe(case: str) -> Any:
        x, y = fn.zeros(shape=[8, 8, 3], dtype=types.UINT8), fn.zeros(shape=[1], dtype=types.INT32)
        cfg = dcm.MixConfig(num_classes=2)
        within = dcm.mix(x, y, cfg, keep_order=False).params
        between = dcm.mix(x, y, cfg, partners=(x, y)).params
        flag = fn.constant(idata=[1], shape=[])
        return {
            "within, with partners": lambda: dcm.mix(x, y, cfg, params=within, partners=(x, y)),
            "between, without": lambda: dcm.mix(x, y, cfg, params=between),
            "enabled": lambda: dcm.mix(x, y, cfg, params=within, enabled=flag),
            "seed": lambda: dcm.mix(x, y, cfg, params=within, seed=3),
            "keep_order": lambda: dcm.mix(x, y, cfg, params=within, keep_order=False),
            "python bool": lambda: dcm.mix(x, y, cfg, enabled=True),  # type: ignore[arg-type]
        }[case]().images

    for case in ("within, with partners", "between, without"):
        with pytest.raises(ValueError, match="`params` must have a `partner` in the batch, or els"):
            pipe(case)
    for case in ("enabled", "seed", "keep_order"):
        with pytest.raises(ValueError, match="must be left out with `params`: nothing is drawn"):
            pipe(case)
    with pytest.raises(TypeError, match="`enabled` must be a DataNode of a pipeline, got True"):
        pipe("python bool")


@pytest.mark.parametrize(
    "options", [{}, {"cutmix_alpha": 0.0, "mixup_alpha": 0.4}], ids=["cutmix", "mixup"]
)
@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 14, 1), (14, 10, 3)], ids=str)
def test_partners_of_another_shape_are_refused(shape: Any, options: dict[str, Any]) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=7)
    def pipe() -> Any:
        x = graphs.feed(np.zeros((16, 10, 14, 3), np.uint8), "HWC")
        other = graphs.feed(np.zeros((16, *shape), np.uint8), "HWC")
        y = graphs.feed(np.zeros(16, np.int32))
        cfg = dcm.MixConfig(num_classes=2, **options)
        return dcm.mix(x, y, cfg, partners=(other, y)).images

    with pytest.raises((RuntimeError, ValueError)) as caught:
        pipe().run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`partners` must have images of the shape of `images`")


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.4])
def test_enabled_is_read_as_a_flag(mixup_alpha: float) -> None:
    cfg = dcm.MixConfig(num_classes=16, mixup_alpha=mixup_alpha)
    images = graphs.distinct_images(np.random.default_rng(6), 16, (10, 14))

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=7)
    def pipe(flag: Any) -> Any:
        enabled = None if flag is None else graphs.feed(np.array([flag] * 16))
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        return dcm.mix(pixels, labels, cfg, enabled=enabled).targets

    expected = graphs.run(pipe(None))
    for flag in (True, 1, 2, np.float32(1.0), [True]):
        assert np.array_equal(graphs.run(pipe(flag))[0][0], expected[0][0])
    for flag in (False, 0, [False]):
        assert np.array_equal(graphs.run(pipe(flag))[0][0], np.eye(16, dtype=np.float32))
    with pytest.raises(RuntimeError) as caught:
        pipe([True, False]).run()
    words = explain(caught.value)
    assert words is not None
    assert words.startswith("`enabled` must be a bool")


# Enabled or not


@pytest.mark.parametrize(
    "options", [{}, {"mixup_alpha": 1.0}, {"cutmix_alpha": 0.0, "mixup_alpha": 1.0}], ids=str
)
def test_enabled_false_gives_the_originals_and_moves_no_draw(options: dict[str, Any]) -> None:
    images = graphs.distinct_images(np.random.default_rng(2), 16, (10, 14))
    cfg = dcm.MixConfig(num_classes=16, **options)

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe(flags: list[bool] | None) -> Any:
        enabled = None
        if flags is not None:
            left = iter(flags)
            enabled = fn.external_source(source=lambda: [np.array(next(left))] * 16, batch=True)
        pixels, labels = graphs.feed(images, "HWC"), graphs.feed(np.arange(16))
        mixed = dcm.mix(pixels, labels, cfg, enabled=enabled)
        return mixed.images, mixed.targets

    always = graphs.run(pipe(None), 4)
    switched = graphs.run(pipe([True, False, False, True] + [True] * 8), 4)
    for k, ((plain, row), (out, target)) in enumerate(zip(always, switched, strict=True)):
        if k in (1, 2):
            assert np.array_equal(out, images)
            assert np.array_equal(target, np.eye(16, dtype=np.float32))
        else:
            assert np.array_equal(out, plain)
            assert np.array_equal(target, row)


# Batches that are not full


def test_pairing_by_place_needs_full_batches() -> None:
    images = graphs.distinct_images(np.random.default_rng(3), 16, (10, 14))

    @pipeline_def(batch_size=20, num_threads=1, device_id=None, seed=1)
    def pipe(partner: Any) -> Any:
        cfg = dcm.MixConfig(num_classes=16, partner=partner)
        return dcm.mix(graphs.feed(images, "HWC"), graphs.feed(np.arange(16)), cfg).images

    for partner in ("permutation", "derangement"):
        assert graphs.run(pipe(partner))[0][0].shape[0] == 16
    for partner in ("flip", "roll"):
        with pytest.raises(RuntimeError) as caught:
            pipe(partner).run()
        words = explain(caught.value)
        assert words is not None
        assert words.startswith("Every batch must be full where samples are paired by their index")


BASE = dcm.MixConfig(num_classes=8, mixup_alpha=0.4, prob=0.8, label_smoothing=0.05)
EFFECTIVE: dict[str, Any] = {
    "num_classes": 9,
    "cutmix_alpha": 0.3,
    "mixup_alpha": 1.0,
    "prob": 0.3,
    "switch_prob": 0.2,
    "mode": "batch",
    "minmax": (0.2, 0.8),
    "correct_lam": False,
    "label_smoothing": 0.0,
    "box": "timm",
    "partner": "roll",
}
CUTMIX = dcm.MixConfig(num_classes=8)
MIXUP = dcm.MixConfig(num_classes=8, mixup_alpha=0.4, cutmix_alpha=0.0)
ALWAYS_CUT = dcm.MixConfig(num_classes=8, mixup_alpha=0.4, switch_prob=1.0)
INEFFECTIVE: list[tuple[dcm.MixConfig, dict[str, Any]]] = [
    (CUTMIX, {"switch_prob": 0.1}),
    (CUTMIX, {"box": "torchvision"}),
    (MIXUP, {"switch_prob": 0.1}),
    (MIXUP, {"box": "timm"}),
    (MIXUP, {"correct_lam": False}),
    (ALWAYS_CUT, {"mixup_alpha": 1.0}),
]


def stream(cfg: dcm.MixConfig) -> list[bytes]:
    images = graphs.distinct_images(np.random.default_rng(0), 16, (16, 23))
    pipe = graphs.mix_pipeline(images, np.arange(16) % 8, cfg, seed=3)
    return [array.tobytes() for batch in graphs.run(pipe, 4) for array in (batch[0], batch[-1])]


@pytest.mark.parametrize("option", EFFECTIVE)
def test_every_option_has_an_effect(option: str) -> None:
    assert stream(BASE) != stream(dataclasses.replace(BASE, **{option: EFFECTIVE[option]}))


def test_the_effective_options_are_all() -> None:
    names = {field.name for field in dataclasses.fields(dcm.MixConfig)}
    # other shapes, and in the place of the short form: tested elsewhere
    assert names - set(EFFECTIVE) == {"targets", "labels", "methods", "weights"}


@pytest.mark.parametrize(("cfg", "change"), INEFFECTIVE, ids=str)
def test_an_option_of_what_is_off_has_none(cfg: dcm.MixConfig, change: dict[str, Any]) -> None:
    assert stream(cfg) == stream(dataclasses.replace(cfg, **change))


@pytest.mark.parametrize("box", ["paper", "timm", "torchvision", "inside"])
def test_odd_sides_tell_the_box_rules_apart(box: Any) -> None:
    # side 5 of 10: paper [c - 2, c + 2), timm [c - 2, c + 3), inside anywhere with all 5.
    draws = {
        "lam": np.full(2, 0.75 - 1e-9),
        "partner": np.array([1, 0], np.int32),
        "position": np.full((2, 2), 0.55),
    }
    images = np.zeros((2, 10, 10, 3), np.uint8)
    cfg = dcm.MixConfig(num_classes=2, box=box)
    ((_, _, (found, _), *_),) = graphs.run(
        graphs.mix_pipeline(images, np.arange(2), cfg, draws=draws)
    )
    expected = {"paper": [3, 3, 4, 4], "timm": [3, 3, 5, 5], "inside": [3, 3, 5, 5]}
    assert found.tolist() == expected.get(box, [3, 3, 4, 4])
