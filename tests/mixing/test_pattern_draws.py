"""How GridMix, FMix, SmoothMix and Cutout are drawn: against the published formulas, in NumPy.

20,480 draws of each at a fixed seed; every test of a distribution must have p > 1e-3.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from nvidia.dali import pipeline_def
from scipy import stats

import dali_cutmix as dcm
from dali_cutmix.mixing.api import draw_plans
from dali_cutmix.mixing.methods.fmix import field_ranks
from dali_cutmix.mixing.plan import Size
from tests import reference
from tests.support import graphs
from tests.support.graphs import Array

P_MIN = 1e-3
BATCH, BATCHES = 512, 40
SIZE = (12, 40)


@cache
def drawn(method: Any, size: tuple[int, int] = SIZE) -> tuple[Array, Array]:
    """lam and the numbers of 20,480 samples."""
    cfg = dcm.MixConfig(methods=(method,))

    @pipeline_def(batch_size=BATCH, num_threads=2, device_id=None)
    def pipe() -> Any:
        params = draw_plans(cfg, Size.of([*size, -1]), seed=4)
        return params.lam, params.patterns[0].numbers

    batches = graphs.run(pipe(), BATCHES)
    lam, numbers = (np.concatenate(x) for x in zip(*batches, strict=True))
    return lam, numbers


def assert_uniform(values: Array, count: int) -> None:
    """Chi-square of whole numbers in [0, count)."""
    assert values.min() >= 0
    assert stats.chisquare(np.bincount(values, minlength=count)).pvalue > P_MIN


def assert_apart(*columns: Array) -> None:
    """No two of them are correlated: 5 standard deviations."""
    correlations = np.corrcoef(np.stack([column.astype(float) for column in columns]))
    off_diagonal = correlations[~np.eye(len(columns), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(len(columns[0]))


@pytest.mark.parametrize("holes", [3, (2, 5)], ids=str)
def test_gridmix_has_the_published_distribution(holes: Any) -> None:
    lam, _ = drawn(dcm.GridMix(holes=holes))
    low, high = (holes, holes) if isinstance(holes, int) else holes
    rng = np.random.default_rng(0)
    expected: dict[float, float] = {}
    for _ in range(4000):  # the published code, of which lam takes few values
        mask = reference.gridmix_holes(rng.uniform(0.1, 0.9), rng.integers(low, high + 1), SIZE)
        value = float(np.float32(1 - mask.mean()))
        expected[value] = expected.get(value, 0) + 1
    # Two samples, of 20,480 and of 4,000: chi-square of homogeneity.
    values = sorted(expected.keys() | set(lam.tolist()))
    counts = np.array([[(lam == value).sum(), expected.get(value, 0)] for value in values])
    often = counts.sum(axis=1) >= 40
    table = np.vstack([counts[often], counts[~often].sum(axis=0)]) + 0.0
    table = table[table.sum(axis=1) > 0]
    assert stats.chi2_contingency(table).pvalue > P_MIN


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_fmix_draws_lam_field_and_shift(alpha: float) -> None:
    lam, numbers = drawn(dcm.FMix(alpha=alpha, fields=7))
    field, y, x, count = numbers.T
    area = SIZE[0] * SIZE[1]
    assert np.array_equal(lam, (count / area).astype(np.float32))
    # The published rule, simulated: KS of two samples.
    rng = np.random.default_rng(1)
    exact = rng.beta(alpha, alpha, 200_000) * area
    published = np.where(rng.random(200_000) > 0.5, np.ceil(exact), np.floor(exact))
    assert stats.ks_2samp(count, published).pvalue > P_MIN
    assert_uniform(field, 7)
    assert_uniform(y, SIZE[0])
    assert_uniform(x, SIZE[1])
    assert_apart(field, y, x, count)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (8, 5)], ids=str)
@pytest.mark.parametrize("decay", [3.0, 1.5, 0.0])
def test_fields_are_the_sum_over_frequencies(decay: float, size: tuple[int, int]) -> None:
    ranks = field_ranks(size, decay, 4, 9)
    rng = np.random.default_rng([9, *size])
    for rank in ranks:
        noise = rng.standard_normal((2, size[0], size[1] // 2 + 1))
        field = reference.fmix_field(noise, decay, size)
        order = np.argsort(-field, axis=None)
        assert np.array_equal(rank.ravel()[order], np.arange(field.size))
    assert ranks.dtype == np.uint16


def borders(masks: Array) -> Array:
    """How many neighbours of a torus differ: (N, H, W) -> (N, 2), down and across."""
    return np.stack(
        [(masks != np.roll(masks, 1, axis)).sum(axis=(1, 2)) for axis in (1, 2)], axis=1
    )


def test_rolled_fields_are_distributed_like_new_ones() -> None:
    """What is drawn of 1,024 fields of a bank, against 20,480 that were each made anew."""
    size, fields = (8, 12), 1024
    half = size[0] * size[1] // 2
    banks = np.concatenate([field_ranks(size, 3.0, fields, seed) for seed in range(20)])
    rng = np.random.default_rng(0)
    down, across = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])
    scale = 1 / np.maximum(np.sqrt(down**2 + across**2), 1 / max(size)) ** 3.0
    noise = rng.standard_normal((len(banks), *scale.shape)) + 1j * rng.standard_normal(
        (len(banks), *scale.shape)
    )
    made = np.fft.irfft2(noise * scale, s=size)
    masks = made > np.sort(made.reshape(len(made), -1))[:, -half - 1, None, None]
    assert (masks.sum(axis=(1, 2)) == half).all()
    shifts = rng.integers(0, size, (len(banks), 2))
    rolled = np.stack([np.roll(r, s, (0, 1)) for r, s in zip(banks, shifts, strict=True)]) < half
    for axis in range(2):
        assert stats.ks_2samp(borders(masks)[:, axis], borders(rolled)[:, axis]).pvalue > P_MIN
    # Each pixel shows half of the time, wherever it is.
    share = rolled.mean(axis=0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(len(rolled))
    # And the mask is not symmetric about a point, as the authors' code has it since March 2020.
    turned = np.roll(rolled[:, ::-1, ::-1], (1, 1), (1, 2))
    assert (turned == rolled).all(axis=(1, 2)).mean() < 0.01


def test_smoothmix_draws_centre_and_sigma() -> None:
    lam, numbers = drawn(dcm.SmoothMix())
    y, x = numbers.T[:2]
    sigma = numbers[:, 2].view(np.float32) / SIZE[0]
    assert_uniform(y, SIZE[0])
    assert_uniform(x, SIZE[1])
    assert stats.kstest(sigma, stats.uniform(0.25, 0.25).cdf).pvalue > P_MIN
    assert_apart(y, x, sigma)
    # openmixup returns the mean of the kernel for the share of the image: that is the partner's.
    for i in range(0, len(lam), 100):
        weights = reference.smoothmix_weights((y[i], x[i]), sigma[i] * SIZE[0], SIZE)
        assert abs(lam[i] - (1 - weights.mean())) < 1e-5


def test_cutout_draws_a_uniform_centre() -> None:
    lam, numbers = drawn(dcm.Cutout(length=6))
    assert (lam == 1).all()
    columns = []
    for axis in range(2):
        boxes = [reference.cutout_box((c, c), 6, (SIZE[axis],) * 2) for c in range(SIZE[axis])]
        centres = {(start, side): c for c, (start, _, side, _) in enumerate(boxes)}
        assert len(centres) == SIZE[axis]  # each has a box of its own
        found = np.array([centres[pair] for pair in zip(*numbers[:, axis::2].T, strict=True)])
        assert_uniform(found, SIZE[axis])
        columns.append(found)
    assert_apart(*columns)


@pytest.mark.parametrize("mode", ["elem", "batch"])
def test_loaders_resume_patterns_bit_for_bit(photos: str, mode: Any) -> None:
    methods = (dcm.GridMix(holes=5), dcm.FMix(fields=3), dcm.SmoothMix(), dcm.Cutout())
    mix = dcm.MixConfig(methods=(*methods, dcm.CutMix(), dcm.ResizeMix()), mode=mode)

    def loader() -> Any:
        return dcm.train_loader(photos, batch_size=20, size=32, mix=mix, device="cpu", seed=3)

    with loader() as whole, loader() as resumed:
        batches = []
        for k, (images, targets) in enumerate(whole):
            batches.append((images.numpy().copy(), targets.numpy().copy()))
            if k == 1:
                state = json.loads(json.dumps(whole.state_dict()))
        resumed.load_state_dict(state)
        for (images, targets), (expected, rows) in zip(resumed, batches[2:], strict=True):
            assert np.array_equal(images.numpy(), expected)
            assert np.array_equal(targets.numpy(), rows)
            assert np.abs(rows.sum(axis=1) - 1).max() < 1e-6
