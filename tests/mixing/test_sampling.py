"""The draws have the published distributions. Every test has a fixed seed: it passes or fails."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali import math as dmath
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix._seeds import op_seed
from dali_cutmix.mixing import boxes
from dali_cutmix.mixing.api import draw_plans
from dali_cutmix.mixing.draw import Draw
from dali_cutmix.mixing.methods import cutmix
from dali_cutmix.mixing.methods.cutmix import exact_boxes
from dali_cutmix.mixing.pairing import pair
from dali_cutmix.mixing.plan import Size
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

P_MIN = 1e-3  # a right implementation fails one such test in a thousand seeds


def draws(
    cfg: dcm.MixConfig,
    batch_size: int = 1000,
    iterations: int = 50,
    seed: int = 11,
    **options: Any,
) -> list[Array]:
    """lam, partner, position[, original], the batches one after the other."""
    batches = graphs.run(graphs.sample_pipeline(cfg, batch_size, seed, **options), iterations)
    return [np.concatenate(values) for values in zip(*batches, strict=True)]


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 5.0])
def test_lam_follows_beta(alpha: float) -> None:
    # Kolmogorov-Smirnov, n = 50,000, p > 1e-3.
    lam = draws(dcm.MixConfig(num_classes=2, cutmix_alpha=alpha))[0]
    assert lam.dtype == np.float64
    assert len(lam) == 50_000
    assert not np.isnan(lam).any()
    assert lam.min() >= 0
    assert lam.max() <= 1
    law = stats.beta(alpha, alpha)
    # A float64 below 1 is at most 1 - 2**-53: draws beyond are 1. Spread them over their share.
    u = law.cdf(lam)
    share_of_1 = law.cdf(2.0**-54)  # by symmetry that above 1 - 2**-54
    u[lam == 1] = 1 - np.random.default_rng(0).uniform(0, share_of_1, (lam == 1).sum())
    assert stats.kstest(u, "uniform").pvalue > P_MIN


def test_positions_are_uniform() -> None:
    # Kolmogorov-Smirnov per axis, n = 50,000, p > 1e-3.
    position = draws(dcm.MixConfig(num_classes=2))[2]
    assert position.min() >= 0
    assert position.max() < 1
    for axis in range(2):
        assert stats.kstest(position[:, axis], "uniform").pvalue > P_MIN


@pytest.mark.slow
def test_centres_are_uniform_over_the_pixels() -> None:
    # Chi-square per axis, n = 20,000, p > 1e-3; the first and the last pixel count in full.
    # Read off one-pixel boxes: side 2 around a centre c covers [c - 1, c + 1), clipped at 0.
    n, size = 20_000, (13, 8)

    @pipeline_def(batch_size=n, num_threads=2, device_id=None)
    def pipe() -> Any:
        order = pair("permutation", n, 3).order
        draw = Draw.for_mode("elem", n, 3, order)
        hw = draw.first(types.Constant(np.array(size, np.int32)))
        share = draw.first(fn.constant(fdata=[0.0625], shape=[1, 1]))
        return draw.deal(boxes.around(share, dmath.floor(draw.uniform("position", 2) * hw), hw))

    ((box,),) = graphs.run(pipe())
    for axis, side in enumerate(size):
        end = box[:, axis] + box[:, axis + 2]
        counts = np.bincount(end, minlength=side + 1)
        assert stats.chisquare(counts[counts > 0]).pvalue > P_MIN
        assert (counts > 0).sum() == side


@pytest.mark.slow
@pytest.mark.parametrize("keep_order", [True, False])
@pytest.mark.parametrize(("partner", "possible"), [("permutation", 24), ("derangement", 6)])
def test_partners_are_uniform_permutations(partner: Any, possible: int, keep_order: bool) -> None:
    # Chi-square over all permutations of 4, 6,000 batches, p > 1e-3. DALI's derangements are the
    # cyclic permutations, 6 of 4, by which every other sample is as likely a partner.
    cfg = dcm.MixConfig(num_classes=2, partner=partner)
    out = draws(cfg, batch_size=4, iterations=6000, keep_order=keep_order)
    partners = out[1].reshape(-1, 4)
    if not keep_order:  # who gives to whom, by place before the shuffle
        index = out[3].reshape(-1, 4)
        assert stats.chisquare(_counts(index, 24)).pvalue > P_MIN
        given = np.empty_like(partners)
        np.put_along_axis(given, index, partners, axis=1)
        partners = given
    if partner == "derangement":
        assert (partners != np.arange(4)).all()
    counts = _counts(partners, possible)
    assert stats.chisquare(counts).pvalue > P_MIN


def _counts(permutations: Array, possible: int) -> Array:
    found, counts = np.unique(permutations, axis=0, return_counts=True)
    every = set(itertools.permutations(range(4)))
    assert {tuple(row) for row in found.tolist()} <= every
    assert len(found) == possible
    return counts


@pytest.mark.parametrize("batch_size", [2, 3, 17, 256])
@pytest.mark.parametrize("keep_order", [True, False])
def test_a_derangement_has_no_fixed_point(batch_size: int, keep_order: bool) -> None:
    cfg = dcm.MixConfig(num_classes=2, partner="derangement")
    pipe = graphs.sample_pipeline(cfg, batch_size, 3, keep_order=keep_order)
    for out in graphs.run(pipe, 200):
        own = np.arange(batch_size) if keep_order else out[3]
        assert sorted(out[1]) == list(range(batch_size))
        assert (out[1] != own).all()


def test_a_permutation_has_fixed_points_now_and_then() -> None:
    # The paper's rule: one self-pair a batch on average. 300 batches of 64: 300 +- 5 * sqrt(300).
    out = draws(dcm.MixConfig(num_classes=2), batch_size=64, iterations=300)
    fixed = (out[1].reshape(-1, 64) == np.arange(64)).sum()
    assert abs(fixed - 300) < 5 * np.sqrt(300)


def test_no_two_draws_depend_on_each_other() -> None:
    # Every pair of draws, also of neighbouring samples, n = 50,000: |r| < 5 / sqrt(n), and a
    # chi-square test on 8 x 8 equally filled cells, which sees what a correlation does not,
    # p > 1e-3 / number of pairs.
    cfg = dcm.MixConfig(num_classes=2, prob=0.5)
    lam, partner, centre, original = draws(cfg, keep_order=False)
    rng = np.random.default_rng(0)
    mixed = lam < 1
    columns = {
        "mixed": mixed + rng.random(len(lam)),  # ties spread, so that cells can be filled evenly
        "lam": np.where(mixed, lam, rng.random(len(lam))),
        "partner": partner + rng.random(len(lam)),
        "original": original + rng.random(len(lam)),
        "y": centre[:, 0] + rng.random(len(lam)),
        "x": centre[:, 1] + rng.random(len(lam)),
    }
    assert_independent({**columns, **{f"{k} before": np.roll(v, 1) for k, v in columns.items()}})


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["elem", "batch"])
def test_lam_and_centre_are_independent_where_all_is_mixed(mode: Any) -> None:
    cfg = dcm.MixConfig(num_classes=2, mode=mode)
    if mode == "elem":
        lam, _, centre = draws(cfg)
    else:
        batches = graphs.run(graphs.sample_pipeline(cfg, 2, 11), 5000)
        lam, _, centre = (np.stack([b[i][0] for b in batches]) for i in range(3))
    spread = np.random.default_rng(0).random(centre.shape)
    y, x = (centre + spread).T
    assert_independent({"lam": lam, "y": y, "x": x})


def assert_independent(columns: dict[str, Array]) -> None:
    names, n = list(columns), len(next(iter(columns.values())))
    r = np.corrcoef(np.stack([columns[name] for name in names]))
    octiles = {
        k: (stats.rankdata(v, "ordinal") - 1).astype(int) * 8 // n for k, v in columns.items()
    }
    pairs = list(itertools.combinations(range(len(names)), 2))
    for i, j in pairs:
        assert abs(r[i, j]) < 5 / np.sqrt(n), (names[i], names[j])
        cells = np.bincount(octiles[names[i]] * 8 + octiles[names[j]], minlength=64).reshape(8, 8)
        p = stats.chi2_contingency(cells).pvalue
        assert p > P_MIN / len(pairs), (names[i], names[j], p)


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_prob_is_the_share_of_mixed_samples(prob: float) -> None:
    # n = 50,000, 5 standard deviations.
    lam = draws(dcm.MixConfig(num_classes=2, prob=prob))[0]
    tolerance = 5 * np.sqrt(prob * (1 - prob) / len(lam))
    assert abs((lam < 1).mean() - prob) <= tolerance


def test_batch_mode_has_one_lam_and_one_centre_a_batch() -> None:
    cfg = dcm.MixConfig(num_classes=2, mode="batch", prob=0.5)
    out = graphs.run(graphs.sample_pipeline(cfg, 16, 5), 400)
    lams = []
    for lam, partner, centre in out:
        assert (lam == lam[0]).all()
        assert (centre == centre[0]).all()
        assert sorted(partner) == list(range(16))
        lams.append(lam[0])
    # 400 batches, half of them mixed, 5 standard deviations; the mixed ones are uniform (KS).
    mixed = np.array([lam for lam in lams if lam < 1])
    assert abs(len(mixed) - 200) < 5 * 10
    assert stats.kstest(mixed, "uniform").pvalue > P_MIN


def test_elem_mode_has_one_lam_and_one_centre_a_sample() -> None:
    lam, _, centre = draws(dcm.MixConfig(num_classes=2), batch_size=64, iterations=1)
    assert len(np.unique(lam)) == 64
    assert len(np.unique(centre, axis=0)) > 60


def test_same_seed_same_draws_and_other_seed_other_draws() -> None:
    cfg = dcm.MixConfig(num_classes=2)
    one, again, other = (draws(cfg, iterations=3, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(one, again, other, strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)


# Boxes drawn from their law


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9), (1, 5), (1, 1), (2, 3)], ids=str)
def test_the_law_of_boxes_is_that_of_lam_and_centre(size: tuple[int, int], odd: bool) -> None:
    # Every centre, and lam at the middle of each of 7,000 equal parts of [0, 1].
    shares, axes = exact_boxes(size, odd=odd)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    rule = reference.timm_box if odd else reference.paper_box
    lams = (np.arange(7000) + 0.5) / 7000
    upper = 1 - np.cumsum(shares)  # of lam, by class
    classes = np.array([int(np.argmax(lam > upper - 1e-12)) for lam in lams])
    assert np.abs(np.bincount(classes, minlength=len(shares)) / 7000 - shares).max() < 3e-4
    far = np.abs(lams[:, None] - upper).min(axis=1) > 1e-6  # from where a side changes
    for lam, k in zip(lams[far][::7], classes[far][::7], strict=True):
        for y, x in itertools.product(*map(range, size)):
            (zero, top, height, h), (_, left, width, w) = axes[0][k, y], axes[1][k, x]
            assert (zero, height, width) == (0, *size)
            assert (top, left, h, w) == rule(lam, (y, x), size)


@pytest.mark.slow
@pytest.mark.parametrize("box", ["paper", "timm"])
@pytest.mark.parametrize("size", [(8, 8), (4, 6)], ids=str)
@pytest.mark.parametrize("prob", [1.0, 0.6])
def test_boxes_drawn_from_their_law_are_distributed_like_others(
    size: tuple[int, int], box: Any, prob: float
) -> None:
    # Every possible box, counted against its exact probability: chi-square, n = 40,000, p > 1e-3.
    n, cfg = 40_000, dcm.MixConfig(num_classes=2, box=box, prob=prob)

    @pipeline_def(batch_size=n, num_threads=2, device_id=None)
    def pipe() -> Any:
        return draw_plans(cfg, Size.of([*size, -1]), seed=4).box

    ((boxes_drawn,),) = graphs.run(pipe())
    shares, axes = exact_boxes(size, odd=box == "timm")
    expected: dict[tuple[int, ...], float] = {(*size, 0, 0): 1 - prob}
    for share, ys, xs in zip(shares, *axes, strict=True):
        for (_, y, _, h), (_, x, _, w) in itertools.product(ys.tolist(), xs.tolist()):
            of_box = prob * share / (size[0] * size[1])
            expected[y, x, h, w] = expected.get((y, x, h, w), 0) + of_box
    counts = Counter(tuple(box) for box in boxes_drawn.tolist())
    assert counts.keys() <= expected.keys()
    likely = [key for key, share in expected.items() if share * n >= 5]
    seen = [*(counts[key] for key in likely), n - sum(counts[key] for key in likely)]
    asked = [*(n * expected[key] for key in likely), n * (1 - sum(expected[k] for k in likely))]
    if asked[-1] < 5:
        seen, asked = seen[:-1], asked[:-1]
        asked = [a * sum(seen) / sum(asked) for a in asked]
    assert stats.chisquare(seen, asked).pvalue > P_MIN


def test_only_what_has_an_exact_distribution_is_drawn_from_it() -> None:
    assert dcm.MixConfig(num_classes=2, box="torchvision", prob=0.5).exact_method is not None
    others: list[dict[str, Any]] = [
        *({"cutmix_alpha": 0.5}, {"mixup_alpha": 0.2}, {"mode": "batch"}, {"box": "inside"}),
        *({"minmax": (0.2, 0.8)}, {"correct_lam": False}),
    ]
    for options in others:
        assert dcm.MixConfig(num_classes=2, **options).exact_method is None


@pytest.mark.slow
@pytest.mark.parametrize("box", ["paper", "timm"])
@pytest.mark.parametrize(
    "size", [(40, 40), (24, 36), (7, 5), (1, 9), (700, 700), (700, 30)], ids=str
)
@pytest.mark.parametrize("prob", [1.0, 0.3, 0.0])
def test_the_same_boxes_are_drawn_without_the_size(
    size: tuple[int, int], box: Any, prob: float
) -> None:
    # 4,500 boxes each: looked up where the size is known and not large, else computed.
    cfg = dcm.MixConfig(num_classes=2, box=box, prob=prob)

    @pipeline_def(batch_size=1500, num_threads=2, device_id=None)
    def pipe(known: bool) -> Any:
        shape = [*size, -1] if known else fn.constant(idata=[*size, 3], shape=[3])
        params = draw_plans(cfg, Size.of(shape), seed=4)
        return params.box, params.lam, params.partner, params.regions.shapes

    known, unknown = (graphs.run(pipe(known), 3) for known in (True, False))
    with pytest.MonkeyPatch.context() as patch:  # the size is known, but too large for a table
        patch.setattr(cutmix, "_LARGEST", 0)
        computed = graphs.run(pipe(True), 3)
    for outputs in zip(known, unknown, computed, strict=True):
        for a, b, c in zip(*outputs, strict=True):
            assert np.array_equal(a, b)
            assert np.array_equal(a, c)


def test_op_seeds_differ_by_path_and_seed() -> None:
    paths: list[tuple[Any, ...]] = [(), ("a",), ("b",), ("a", 0), ("a", 1), (0, "a"), (0,), (1,)]
    seeds = {op_seed(seed, *path) for seed in range(50) for path in paths}
    assert len(seeds) == 50 * len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)
