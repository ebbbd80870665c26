"""Partners by groups, and a probability for each class."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix._rules import explain
from dali_cutmix.mixing.pairing import Group, pair
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

P_MIN = 1e-3
SIZE = (9, 12)


def partners(groups: Array, partner: str, rounds: int, *, wide: bool = False) -> Array:
    """Own index and that of the partner, and whether there is one: (rounds, N, 3)."""
    count = len(groups)

    @pipeline_def(batch_size=count, num_threads=1, device_id=None)
    def pipe() -> Any:
        node = graphs.feed(groups.astype(np.int32)[:, None])
        if wide:
            words = groups.astype(np.int64)[:, None].view(np.int32)
            node = graphs.feed(words)
        found = pair(
            partner, count, 3, keep_order=False, small=True, group=Group(node, 2 if wide else 1)
        )
        assert found.original is not None
        return found.original, found.partner, found.paired

    outputs = graphs.run(pipe(), rounds)
    return np.stack([np.stack([np.ravel(x) for x in one], axis=1) for one in outputs])


def check_round(groups: Array, found: Array, partner: str) -> None:
    """What holds in every batch."""
    own, other, paired = found.T
    count = len(groups)
    assert np.array_equal(own, np.arange(count))
    same_group = groups[own] == groups[other]
    sizes = (groups[:, None] == groups).sum(1)
    if partner == "same":
        assert same_group.all()
        assert sorted(other) == list(range(count))  # each gives once
        assert np.array_equal(paired, sizes > 1)
    else:
        assert np.array_equal(same_group, sizes == count)
        assert np.array_equal(paired, sizes < count)
    assert np.array_equal(paired, own != other)


@pytest.mark.parametrize("partner", ["same", "other"])
@pytest.mark.parametrize("count", [2, 3, 17, 64, 1024])
def test_nobody_leaves_a_group_or_meets_its_own(count: int, partner: str) -> None:
    # One group, groups of several sizes, each alone.
    rng = np.random.default_rng(count)
    for groups in (
        np.zeros(count, int),
        rng.integers(0, max(2, count // 4), count),
        rng.permutation(count),
    ):
        for found in partners(groups, partner, 3):
            check_round(groups, found, partner)


def cycle_of(members: Array, other: Array) -> tuple[int, ...]:
    """The members of a group from the first on, each followed by its partner."""
    chain = [int(members[0])]
    while len(chain) < len(members):
        chain.append(int(other[chain[-1]]))
    assert other[chain[-1]] == chain[0]  # one cycle
    return tuple(chain)


def test_every_groups_cycles_are_uniform() -> None:
    # 4,000 rounds; chi-square over the (n - 1)! cycles of each group, p > 1e-3: 24 of five images,
    # 6 of four, 2 of three, of which none is drawn more often than another; one of two, and of one.
    groups = np.array([7, 1, 7, 4, 1, 7, 4, 1, 9, 7, 4, 7, 1, 3, 3])
    found = partners(groups, "same", 4000)
    for one in found:
        check_round(groups, one, "same")
    for group, cycles in ((7, 24), (1, 6), (4, 2), (3, 1)):
        members = np.flatnonzero(groups == group)
        chains = [cycle_of(members, one[:, 1]) for one in found]
        _, counts = np.unique(chains, axis=0, return_counts=True)
        assert len(counts) == cycles
        if cycles > 1:
            assert stats.chisquare(counts).pvalue > P_MIN
    # Cycles of two groups are drawn apart: chi-square of their table, p > 1e-3.
    cells = [(one[1, 1], one[3, 1]) for one in found]
    rows, columns = (np.unique([cell[k] for cell in cells], return_inverse=True)[1] for k in (0, 1))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    assert stats.chi2_contingency(table).pvalue > P_MIN


def test_of_other_groups_every_image_is_as_likely() -> None:
    # 2,000 rounds; chi-square over the images of other groups, for each of 15, p > 1e-3 / 15.
    groups = np.array([7, 1, 7, 4, 1, 7, 4, 1, 9, 7, 4, 7, 1, 3, 3])
    found = partners(groups, "other", 2000)
    for one in found:
        check_round(groups, one, "other")
    for k, group in enumerate(groups):
        counts = np.bincount(found[:, k, 1], minlength=15)
        assert (counts[groups == group] == 0).all()
        assert stats.chisquare(counts[groups != group]).pvalue > P_MIN / 15


def test_where_all_differ_other_is_one_cycle_through_all() -> None:
    # So that each gives once: a derangement. 6 cycles of four, 1,500 rounds, p > 1e-3.
    found = partners(np.array([5, 2, 8, 1]), "other", 1500)
    chains = [cycle_of(np.arange(4), one[:, 1]) for one in found]
    _, counts = np.unique(chains, axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > P_MIN


def test_groups_of_64_bits_are_told_apart_by_all_of_them() -> None:
    groups = np.array([1, 2**32 + 1, -1, 2**40, 1, 2**32 + 1, -1, 2**40, 2**62, 2**63 - 1])
    for found in partners(groups, "same", 20, wide=True):
        check_round(groups, found, "same")


def test_the_seed_decides() -> None:
    groups = np.arange(64) % 5
    one, again = (partners(groups, "same", 5) for _ in range(2))
    assert np.array_equal(one, again)
    assert len({row.tobytes() for row in one}) == 5


# Mixed by them

OPTIONS: dict[str, dict[str, Any]] = {
    "exact": {},
    "batch": {"mode": "batch"},
    "batch, prob": {"mode": "batch", "prob": 0.5, "cutmix_alpha": 0.4},
    "table": {"cutmix_alpha": 0.4, "prob": 0.7},
    "both": {"mixup_alpha": 0.4},
    "both, batch": {"mixup_alpha": 0.4, "mode": "batch"},
    "mixup": {"cutmix_alpha": 0.0, "mixup_alpha": 0.4},
    "mixup, batch": {"cutmix_alpha": 0.0, "mixup_alpha": 0.4, "mode": "batch"},
    "resized": {"methods": (dcm.CutMix(), dcm.ResizeMix())},
    "float": {"labels": "float"},
    "pair targets": {"targets": "pair"},
}


def mixed(
    cfg: dcm.MixConfig,
    labels: Array,
    *,
    groups: Array | None = None,
    device: str = "cpu",
    conditionals: bool = False,
    iterations: int = 3,
    **options: Any,
) -> tuple[Array, list[list[Array]]]:
    """The images, and: mixed ones, lam, box, partner, paired, blended, original, *targets."""
    count = len(labels)
    images = graphs.distinct_images(np.random.default_rng(0), count, SIZE)

    @pipeline_def(
        batch_size=count,
        num_threads=1,
        device_id=0 if device == "gpu" else None,
        seed=1,
        prefetch_queue_depth=1,
        enable_conditionals=conditionals,
    )
    def pipe() -> Any:
        pixels = graphs.feed(images, "HWC")
        if device == "gpu":
            pixels = pixels.gpu()
        of_group = {} if groups is None else {"groups": graphs.feed(groups)}
        out = dcm.mix(pixels, graphs.feed(labels), cfg, **of_group, **options)
        params = out.params
        blended = params.paired ^ params.paired if params.blended is None else params.blended
        original = params.partner * 0 - 1 if params.original is None else params.original
        targets = out.targets if isinstance(out.targets, tuple) else (out.targets,)
        plan = (params.lam, params.box, params.partner, params.paired, blended, original)
        return (out.images, *plan, *targets)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mixing in a batch of")
        return images, graphs.run(pipe(), iterations)


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("partner", ["same", "other"])
@pytest.mark.parametrize("name", OPTIONS)
def test_whoever_is_alone_keeps_its_pixels_and_its_label(
    name: str, partner: Any, device: str
) -> None:
    groups = np.array([3, 1, 3, 0, 1, 3, 2, 1, 3]) if partner == "same" else np.zeros(9, int)
    cfg = dcm.MixConfig(num_classes=4, partner=partner, **OPTIONS[name])
    labels = np.eye(4, dtype=np.float32)[groups] if cfg.labels == "float" else groups
    given = {"groups": groups} if cfg.labels == "float" else {}
    alone = (groups[:, None] == groups).sum(1) == 1 if partner == "same" else groups == 0
    some_mixed = False
    for options in ({}, {"keep_order": False}, {"size": SIZE}):
        images, outputs = mixed(cfg, labels, device=device, iterations=5, **given, **options)
        for out, lam, box, other, paired, blended, original, *targets in outputs:
            own = np.arange(9) if (original == -1).all() else original
            assert np.array_equal(paired, ~alone[own])
            for k, (i, j) in enumerate(zip(own, other, strict=True)):
                some_mixed |= bool(lam[k] < 1)
                if not paired[k]:
                    assert (i, lam[k], blended[k]) == (j, 1, False)
                    assert box[k].tolist() == [*SIZE, 0, 0]
                    assert np.array_equal(out[k], images[i])
                    if cfg.targets == "soft":
                        assert np.array_equal(targets[0][k], np.eye(4)[groups[i]])
                elif blended[k]:
                    graphs.assert_blended(out[k], images[i], images[j], lam[k])
                elif "methods" not in OPTIONS[name]:
                    pasted = reference.pasted(images[i], images[j], tuple(box[k].tolist()))
                    assert np.array_equal(out[k], pasted)
                if cfg.targets == "soft":
                    row = reference.mixed_row(*np.eye(4)[groups[[i, j]]], lam[k])
                    assert np.abs(targets[0][k] - row).max() < 1e-6
                else:
                    assert [x[k] for x in targets] == [groups[i], groups[j], lam[k]]
    assert some_mixed == (partner == "same")


METHODS = (
    *(dcm.CutMix(alpha=0.5), dcm.ResizeMix(), dcm.GridMix(holes=3), dcm.FMix(), dcm.SmoothMix()),
    *(dcm.Cutout(length=8, fill=7.0), dcm.SaliencyMix(), dcm.AttentiveMix(), dcm.SnapMix()),
    *(dcm.ObjectCutMix(), dcm.DetectionCutMix(), dcm.MixUp()),
)


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("mode", ["elem", "batch"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_of_every_method_some_samples_are_left_out(method: Any, mode: Any, device: str) -> None:
    # Class 3 is there once, so that it has no partner; of class 1, where it can be said, prob is 0.
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3] * 2)[:-1]
    prob = [1.0, 0.0, 1.0, 1.0] if mode == "elem" else 1.0
    cfg = dcm.MixConfig(
        num_classes=4, methods=(method, dcm.CutMix()), partner="same", mode=mode, prob=prob
    )
    count, rng = len(labels), np.random.default_rng(0)
    images = graphs.distinct_images(rng, count, SIZE)
    maps = rng.random((count, 5, 7)).astype(np.float32)
    masks = np.zeros((count, *SIZE), np.uint8)
    masks[:, 2:5, 3:8] = 1
    boxes = np.tile(np.array([[0.1, 0.1, 0.4, 0.3]], np.float32), (count, 1, 1))

    @pipeline_def(batch_size=count, num_threads=1, device_id=0 if device == "gpu" else None, seed=1)
    def pipe() -> Any:
        fed = graphs.feed(images, "HWC")
        given: dict[str, Any] = {"size": SIZE, "keep_order": False}
        if cfg.by_saliency:
            given["saliency"] = graphs.feed(maps)
        if cfg.avoids or cfg.object_method:
            given["objects"] = graphs.feed(masks if cfg.object_method else boxes)
        fed = fed.gpu() if device == "gpu" else fed
        out = dcm.mix(fed, graphs.feed(labels), cfg, **given)
        original = out.params.original
        if original is None:
            original = fn.reshape(graphs.feed(np.arange(count)[:, None]), shape=[])
        return out.images, out.targets, out.params.lam, original

    changed = 0
    for out, targets, lam, original in graphs.run(pipe(), 6):
        for k, i in enumerate(original):
            if labels[i] == 3 or (labels[i] == 1 and mode == "elem"):
                assert lam[k] == 1
                assert np.array_equal(out[k], images[i])
                assert np.array_equal(targets[k], np.eye(4)[labels[i]])
            else:
                changed += not np.array_equal(out[k], images[i])
    assert changed > 6


@pytest.mark.parametrize("partner", ["same", "other"])
def test_conditionals_change_nothing(partner: Any) -> None:
    labels = np.arange(16) % 5
    cfg = dcm.MixConfig(num_classes=5, partner=partner, cutmix_alpha=0.5, prob=[0.5] * 5)
    outputs = [mixed(cfg, labels, conditionals=flag)[1] for flag in (False, True)]
    for plain, converted in zip(*outputs, strict=True):
        for a, b in zip(plain, converted, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("options", [{}, {"cutmix_alpha": 0.4}, {"mixup_alpha": 0.4}], ids=str)
@pytest.mark.parametrize("on", [True, False])
def test_a_switch_and_a_repetition(options: dict[str, Any], on: bool) -> None:
    # Switched off nobody is mixed, and the partners are drawn all the same. The plan on other data
    # is the same plan.
    cfg = dcm.MixConfig(num_classes=13, partner="same", **options)
    images = graphs.distinct_images(np.random.default_rng(0), 16, SIZE)

    @pipeline_def(batch_size=16, num_threads=1, device_id=None, seed=1)
    def pipe(flag: bool) -> Any:
        fed, labels = graphs.feed(images, "HWC"), graphs.feed(np.array([*range(13), 0, 1, 1]) % 13)
        enabled = graphs.feed(np.full(16, flag))
        mixed = dcm.mix(fed, labels, cfg, enabled=enabled)
        again = dcm.mix(fed, labels, cfg, params=mixed.params)
        params = mixed.params
        return (
            mixed.images,
            again.images,
            params.lam,
            again.params.lam,
            params.partner,
            params.paired,
        )

    out, same, lam, lam_again, partner, paired = graphs.run(pipe(on))[0]
    assert np.array_equal(out, same)
    assert np.array_equal(lam, lam_again)
    assert np.array_equal(paired, [True, True, *[False] * 11, True, True, True])
    assert np.array_equal(partner != np.arange(16), paired)
    assert on == (lam < 1).any()
    unmixed = ~paired if on else paired | True
    assert np.array_equal(out[unmixed], images[unmixed])


def test_groups_go_before_classes() -> None:
    labels, groups = np.arange(12), np.array([2**40, 5] * 6)
    cfg = dcm.MixConfig(num_classes=12, partner="same")
    _, outputs = mixed(cfg, labels, groups=groups)
    for _, _, _, other, paired, *_ in outputs:
        assert paired.all()
        assert np.array_equal(groups[other], groups)
        assert sorted(other) == list(range(12))


@pytest.mark.parametrize(
    ("cfg", "options", "error", "message"),
    [
        ({"partner": "same", "labels": "float"}, {}, ValueError, "give mix.. `groups`, a number"),
        ({"partner": "other"}, {"labels": None}, ValueError, "give mix.. `groups`, a number"),
        ({}, {"groups": 1}, ValueError, "`groups` must be left out unless `partner` is"),
        ({"partner": "same"}, {"groups": 7}, TypeError, "`groups` must be a DataNode"),
        ({"partner": "same"}, {"partners": 1}, ValueError, '`partner` must not be "same" with'),
        ({"prob": [0.5] * 9}, {"labels": None}, ValueError, "`prob` must be one number where"),
    ],
)
def test_what_cannot_be_is_refused_at_build(
    cfg: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    @pipeline_def(batch_size=16, num_threads=1, device_id=None)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((16, 4, 4, 3), np.uint8), "HWC")
        labels = graphs.feed(np.zeros(16, int))
        given = dict(options)
        if "groups" in given and given["groups"] == 1:
            given["groups"] = labels
        if "partners" in given:
            given["partners"] = (images, labels)
        own = given.pop("labels", labels)
        return dcm.mix(images, own, dcm.MixConfig(num_classes=9, **cfg), **given).images

    with pytest.raises(error, match=message):
        pipe()


@pytest.mark.parametrize("groups", [np.zeros(16, np.float32), np.zeros((16, 2), np.int32)])
def test_groups_that_are_no_integers_are_named(groups: Array) -> None:
    cfg = dcm.MixConfig(num_classes=9, partner="same")
    with pytest.raises(RuntimeError) as raised:
        mixed(cfg, np.zeros(16, int), groups=groups)
    assert (explain(raised.value) or "").startswith("`groups` must be int32 or int64 scalars")


def test_a_batch_that_is_not_full_is_named() -> None:
    cfg = dcm.MixConfig(num_classes=9, partner="other")

    @pipeline_def(batch_size=17, num_threads=1, device_id=None)
    def pipe() -> Any:
        images = fn.external_source(
            source=lambda: [np.zeros((4, 4, 3), np.uint8)] * 16, batch=True, layout="HWC"
        )
        labels = fn.external_source(source=lambda: [np.array(1)] * 16, batch=True)
        return dcm.mix(images, labels, cfg).images

    with pytest.raises(RuntimeError) as raised:
        pipe().run()
    assert (explain(raised.value) or "").startswith("Every batch must be full where samples are")


def test_batches_of_more_than_4096_are_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be at most 4096 with `partner="):
        pair("same", 4097, 1, group=Group(None))  # type: ignore[arg-type]


# A probability for each class


@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize("options", [{}, {"cutmix_alpha": 0.5}, {"mixup_alpha": 0.5}], ids=str)
def test_each_class_is_mixed_as_often_as_it_says(options: dict[str, Any], keep_order: bool) -> None:
    # 400 batches of 40, 10 of each class: 5 standard deviations. With 1 and 0 always and never.
    prob = [0.0, 1.0, 0.25, 0.7]
    labels = np.arange(40) % 4
    cfg = dcm.MixConfig(num_classes=4, prob=prob, partner="derangement", **options)
    counts, total = np.zeros(4), 0

    @pipeline_def(batch_size=40, num_threads=1, device_id=None, seed=5)
    def pipe() -> Any:
        images = graphs.feed(np.zeros((40, 64, 64, 1), np.uint8), "HWC")
        params = dcm.mix(images, graphs.feed(labels), cfg, keep_order=keep_order).params
        blended = params.lam < 2 if params.blended is None else params.blended
        original = params.partner * 0 - 1 if params.original is None else params.original
        return params.lam, original, blended

    for lam, original, _ in graphs.run(pipe(), 400):
        own = np.arange(40) if (original == -1).all() else original
        counts += np.bincount(labels[own], weights=lam < 1, minlength=4)
        total += 10
    # What has a box of no pixels is not seen as mixed.
    empty = 0.01 if not options else 0.03
    assert counts[0] == 0
    for k in (1, 2, 3):
        tolerance = 5 * np.sqrt(prob[k] * (1 - prob[k]) / total) + empty
        assert abs(counts[k] / total - prob[k]) < tolerance


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prob": [0.5] * 3}, ValueError, "`prob` must be one number, or 9, one for each class"),
        ({"prob": []}, ValueError, "`prob` must be one number, or one for each class, got none"),
        ({"prob": [0.5] * 8 + [1.5]}, ValueError, r"`prob` must be in \[0, 1\], got 1.5"),
        ({"prob": ["0.5"] * 9}, TypeError, "`prob` must be a number, got '0.5'"),
        ({"prob": b"123456789"}, TypeError, "`prob` must be a number"),
        ({"prob": [0.5] * 9, "mode": "batch"}, ValueError, '`mode` must be "elem" with a `prob`'),
        ({"prob": [0.5] * 9, "labels": "float"}, ValueError, '`labels` must be "int" with a `pro'),
        ({"partner": "same", "mode": "pair"}, ValueError, '`partner` must be "flip" with `mode='),
        ({"partner": "same", "methods": (dcm.Mosaic(),)}, ValueError, '"permutation" or "derange'),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dcm.MixConfig(num_classes=9, **options)


def test_probabilities_may_be_an_array_and_the_config_is_a_value() -> None:
    cfg = dcm.MixConfig(num_classes=3, prob=np.array([0.5, 0.25, 1.0]))
    assert cfg.prob == (0.5, 0.25, 1.0)
    assert hash(cfg) == hash(dcm.MixConfig(num_classes=3, prob=[0.5, 0.25, 1]))
